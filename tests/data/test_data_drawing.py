"""Drawings of any size become the image that MNIST would have made of them."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from purpleteam.core.errors import DataError
from purpleteam.data.drawing import CASES, EmptyDrawing, fitted, place, redraw, strokes

THREE = [[(90.0, 60.0), (190.0, 70.0), (120.0, 130.0), (190.0, 180.0), (100.0, 230.0)]]
DRAWINGS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=45)).filter(
    lambda image: bool((image >= 64).any())
)


def place_by_the_book(image) -> list[list[int]]:
    """The docstring's steps in Python's own whole numbers and fractions, cell by cell."""
    ys, xs = (sorted({int(at[axis]) for at in np.argwhere(image >= 64)}) for axis in (0, 1))
    box = [[int(v) for v in row[xs[0] : xs[-1] + 1]] for row in image[ys[0] : ys[-1] + 1]]
    h, w = len(box), len(box[0])
    rows, columns = (max(1, floor(Fraction(20 * n, max(h, w)) + Fraction(1, 2))) for n in (h, w))

    def cover(i, j, pixels, cells):
        return max(0, min((i + 1) * cells, (j + 1) * pixels) - max(i * cells, j * pixels))

    across = [
        [sum(cover(x, k, w, columns) * row[x] for x in range(w)) for k in range(columns)]
        for row in box
    ]
    sums = [
        [sum(cover(y, j, h, rows) * across[y][k] for y in range(h)) for k in range(columns)]
        for j in range(rows)
    ]
    peak = max(map(max, sums))
    cells = [[floor(Fraction(255 * s, peak) + Fraction(1, 2)) for s in row] for row in sums]

    def start(profile):
        centre = Fraction(sum(i * m for i, m in enumerate(profile)), sum(profile))
        return min(max(-floor(centre - Fraction(27, 2)), 0), 28 - len(profile))

    top, left = start([sum(row) for row in cells]), start([sum(c) for c in zip(*cells)])
    placed = np.zeros((28, 28), int)
    placed[top : top + rows, left : left + columns] = cells
    return placed.tolist()


@settings(max_examples=30, deadline=None)
@given(DRAWINGS)
def test_the_matrices_compute_exactly_what_the_specification_says(image):
    assert place(image).tolist() == place_by_the_book(image)


@settings(deadline=None)
@given(DRAWINGS, st.integers(0, 30), st.integers(0, 30))
def test_where_on_the_canvas_it_is_drawn_makes_no_difference(image, left, top):
    moved = np.pad(image, ((top, 7), (left, 3)))
    assert np.array_equal(place(moved), place(image))


@settings(deadline=None)
@given(DRAWINGS, st.integers(2, 4))
def test_how_large_it_is_drawn_makes_no_difference(image, times):
    large = image.repeat(times, axis=0).repeat(times, axis=1)
    assert np.array_equal(place(large), place(image))


def test_the_longest_side_is_20_and_the_brightest_pixel_255():
    for width in (4.0, 20.0, 60.0):
        placed = place(strokes(THREE, width=width))
        used = [np.flatnonzero(placed.any(axis=axis)) for axis in (0, 1)]
        assert max(int(at[-1] - at[0]) + 1 for at in used) == 20
        assert placed.max() == 255


def test_the_centre_of_mass_comes_to_the_middle():
    placed = place(strokes(THREE)).astype(float)
    for axis in (0, 1):
        profile = placed.sum(axis=axis)
        assert 13.5 <= profile @ np.arange(28) / profile.sum() < 14.5


def test_a_lopsided_drawing_stays_whole():
    image = np.zeros((200, 200), np.uint8)
    image[:60], image[:, :8] = 255, 255
    placed = place(image)
    assert np.flatnonzero(placed.any(axis=1)).tolist() == list(range(8, 28))


def test_a_dab_and_a_straight_line_are_drawings_too():
    assert place(strokes([[(3.0, 270.0)]], width=6)).any()
    assert np.count_nonzero(place(strokes([[(140.0, 20.0), (140.0, 260.0)]])).any(axis=0)) == 2


def test_no_ink_is_an_empty_drawing():
    for image in (np.zeros((280, 280)), np.full((28, 28), 63), np.zeros((0, 5))):
        with pytest.raises(EmptyDrawing, match="empty"):
            place(image.astype(np.uint8))


@pytest.mark.parametrize("bad", [np.ones((9, 9)), np.ones((9, 9, 3), np.uint8)])
def test_what_is_no_grey_image_is_refused(bad):
    with pytest.raises(DataError, match="uint8"):
        place(bad)


def test_a_stroke_is_as_wide_as_its_brush_and_smooth_at_the_edge():
    canvas = strokes([[(50.0, 140.0), (230.0, 140.0)]], width=20)
    assert np.count_nonzero(canvas[:, 140] == 255) == 20
    assert np.count_nonzero((strokes(THREE) > 0) & (strokes(THREE) < 255)) > 100


@pytest.mark.parametrize("pen", [6.0, 20.0, 40.0])
@pytest.mark.parametrize("side", [20.0, 60.0, 260.0])
def test_size_and_place_and_pen_hardly_change_what_a_model_is_shown(side, pen):
    drawn = [[(5 + x * side / 170, 8 + y * side / 170) for x, y in line] for line in THREE]
    lines, widths = fitted(drawn, width=pen)
    others, others_widths = fitted(THREE, width=widths[0] * 170 / 200)
    shown = place(strokes(lines, width=widths)).astype(int)
    assert np.abs(shown - place(strokes(others, width=others_widths))).max() <= 1
    assert 20 <= widths[0] <= 28


def test_a_tap_that_trembles_stays_a_blot():
    for far in (0.0, 2.0):
        lines, (width,) = fitted([[(100.0, 100.0), (100.0, 100.0 + far)]])
        canvas = strokes(lines, width=width) > 127
        height, across = (np.count_nonzero(canvas.any(axis=axis)) for axis in (1, 0))
        assert height < 2 * across


@pytest.mark.parametrize("shear", [-0.8, -0.3, 0.0, 0.5])
def test_half_of_the_slant_goes_away_however_many_points_a_line_has(shear):
    slanted = [(100 + shear * y, float(y)) for y in (40, 240)]
    finer = [(100 + shear * y, float(y)) for y in range(40, 241, 5)]
    (coarse,), _ = fitted([slanted])
    (fine,), _ = fitted([finer])
    (x, y), (end_x, end_y) = coarse
    assert (end_x - x) / (end_y - y) == pytest.approx((shear - 0.13) / 2)
    assert fine[0] == pytest.approx(coarse[0]) and fine[-1] == pytest.approx(coarse[-1])


def test_a_dash_stays_a_dash():
    (line,), _ = fitted([[(40.0, 140.0), (240.0, 142.0)]])
    assert line[1][0] - line[0][0] == pytest.approx(200)


def test_nothing_drawn_is_fitted_to_nothing():
    assert fitted([]) == ([], [])


def test_a_redrawn_digit_comes_back_nearly_the_same_up_to_one_pixel_of_shift():
    digit = place(strokes(THREE, width=26))
    steps = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    for case in CASES:
        for x, y in case.offsets(5, seed=1):
            back = place(redraw(digit, size=case.size, offset_x=x, offset_y=y)).astype(int)
            apart = [np.abs(np.roll(back, step, (0, 1)) - digit).mean() for step in steps]
            assert min(apart) < 6


def test_redrawing_puts_the_box_where_it_is_asked():
    digit = place(strokes(THREE))
    canvas = redraw(digit, size=80, offset_x=100, offset_y=-90) >= 64
    for axis, middle in ((0, 240), (1, 50)):
        at = np.flatnonzero(canvas.any(axis=axis))
        assert abs((at[0] + at[-1]) / 2 - middle) < 3
    assert redraw(digit, size=80).shape == (280, 280)


def test_redrawing_favours_no_side():
    digit = place(strokes(THREE))
    turned = redraw(digit[::-1, ::-1], size=200)[::-1, ::-1]
    assert np.abs(turned.astype(int) - redraw(digit, size=200)).max() <= 1


def test_there_is_nothing_to_redraw_in_an_empty_digit():
    with pytest.raises(EmptyDrawing):
        redraw(np.zeros((28, 28), np.uint8), size=80)
