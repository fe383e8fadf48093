"""The triggers of the whole image: by the papers' formulas, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from purpleteam.attacks.poison.triggers import (
    Blend,
    Nothing,
    Patches,
    Sinusoid,
    Trigger,
    Warp,
    warped,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 9, 12, 3)).astype(np.uint8)


@given(value=some.integers(0, 255), ratio=some.floats(0.01, 1), seed=some.integers(0, 9))
def test_a_blend_is_the_weighted_mean_of_image_and_pattern(
    value: int, ratio: float, seed: int
) -> None:
    blend = Blend(ratio=ratio, pattern_seed=seed)
    found = blend.stamp(np.full((1, 2, 3, 1), value, np.uint8))[0, :, :, 0]
    for place, mixed in np.ndenumerate(found):
        exact = (1 - ratio) * value + ratio * int(blend.pixels(2, 3, 1)[*place, 0])
        assert abs(int(mixed) - exact) <= 0.5 + 1e-9


def test_a_picture_spans_all_greys_and_is_smoother_than_noise() -> None:
    picture, noise = (Blend(pattern=kind).pixels(28, 28, 1) for kind in ("picture", "noise"))
    assert picture.min() == 0 and picture.max() == 255
    step = [np.abs(np.diff(one.astype(float), axis=1)).mean() for one in (picture, noise)]
    assert step[0] < step[1] / 2


def test_stripes_are_the_formula_of_barni_for_every_column_and_row() -> None:
    grey = np.full((1, 3, 10, 2), 100, np.uint8)
    found = Sinusoid(amplitude=50, frequency=2).stamp(grey)
    for j in range(1, 11):
        expected = round(100 + 50 * math.sin(2 * math.pi * j * 2 / 10))
        assert (found[0, :, j - 1, :] == expected).all()


def test_stripes_stop_at_black_and_white() -> None:
    found = Sinusoid(amplitude=200).stamp(IMAGES)
    exact = IMAGES + Sinusoid(amplitude=200).wave(12)[None, None, :, None]
    assert np.array_equal(found, np.clip(np.rint(exact), 0, 255))


def test_a_warp_of_no_strength_is_the_image() -> None:
    assert np.array_equal(Warp(strength=0).stamp(IMAGES), IMAGES)


@given(value=some.integers(0, 255), strength=some.floats(0, 20), seed=some.integers(0, 50))
def test_a_warp_leaves_an_even_image_as_it_is(value: int, strength: float, seed: int) -> None:
    even = np.full((2, 6, 5, 1), value, np.uint8)
    assert np.array_equal(Warp(strength=strength, pattern_seed=seed).stamp(even), even)


def test_a_warp_by_one_pixel_reads_the_neighbour_and_at_the_border_itself() -> None:
    row = np.array([[[[10], [20], [40]]]], np.uint8)
    right = np.zeros((1, 1, 3, 2))
    right[..., 1] = 1
    assert warped(row, right)[0, 0, :, 0].tolist() == [20, 40, 40]
    assert warped(row, right / 2)[0, 0, :, 0].tolist() == [15, 30, 40]
    assert warped(row, -right)[0, 0, :, 0].tolist() == [10, 10, 20]


@given(seed=some.integers(0, 200))
def test_warping_is_bilinear_interpolation_pixel_by_pixel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    field = rng.uniform(-4, 4, (1, 9, 12, 2))
    found = warped(IMAGES[:1], field)
    row, column = int(rng.integers(9)), int(rng.integers(12))
    y = min(max(row + field[0, row, column, 0], 0), 8)
    x = min(max(column + field[0, row, column, 1], 0), 11)
    exact = sum(
        max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j)) * IMAGES[0, i, j, 1].astype(float)
        for i in range(9)
        for j in range(12)
    )
    assert abs(int(found[0, row, column, 1]) - exact) <= 0.5 + 1e-9


def test_the_arrows_of_a_warp_have_the_mean_length_asked_for() -> None:
    corners = Warp(strength=1.5, grid=4).field(4, 4)  # as large as the grid: the arrows themselves
    assert np.abs(corners).mean() == pytest.approx(1.5)


def test_patches_are_all_stamped_and_the_mask_is_all_of_them() -> None:
    two = Patches(patches=(Trigger(size=1, corner="top-left"), Trigger(size=2)))
    found = two.stamp(np.zeros((1, 5, 5, 1), np.uint8))[0, :, :, 0]
    assert found[0, 0] == 255 and (found[-2:, -2:] == 255).all() and found.sum() == 5 * 255
    assert np.array_equal(two.mask(5, 5), found > 0)


def test_nothing_changes_nothing() -> None:
    assert np.array_equal(Nothing().stamp(IMAGES), IMAGES) and not Nothing().mask(9, 12).any()


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (Blend, {"ratio": 0}, "ratio must be above 0"),
        (Blend, {"pattern_seed": -1}, "pattern_seed must be"),
        (Sinusoid, {"amplitude": 0}, "amplitude must be above 0"),
        (Sinusoid, {"frequency": -1}, "frequency must be above 0"),
        (Warp, {"strength": -1}, "strength must be at least 0"),
        (Warp, {"grid": 1}, "grid must be at least 2"),
        (Warp, {"pattern_seed": -1}, "pattern_seed must be"),
        (Patches, {"patches": ()}, "patches must hold at least 1"),
    ],
)
def test_impossible_triggers_are_refused(
    kind: type, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**fields)
