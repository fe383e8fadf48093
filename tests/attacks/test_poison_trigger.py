"""The trigger: literal pixels, colours on grey, and what a record says of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from purpleteam.attacks.poison.triggers import Corner, Trigger

BLACK = np.zeros((1, 4, 5, 1), np.uint8)


def stamped(trigger: Trigger) -> list[list[int]]:
    pixels: list[list[int]] = trigger.stamp(BLACK)[0, :, :, 0].tolist()
    return pixels


def test_a_square_is_stamped_in_the_bottom_right_corner() -> None:
    assert stamped(Trigger(size=2)) == [
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 255, 255],
        [0, 0, 0, 255, 255],
    ]


def test_a_checkerboard_is_stamped_in_the_top_left_corner() -> None:
    trigger = Trigger(pattern="checkerboard", corner="top-left", colour=(9,))
    assert stamped(trigger) == [[9, 0, 9, 0, 0], [0, 9, 0, 0, 0], [9, 0, 9, 0, 0], [0, 0, 0, 0, 0]]


def test_a_checkerboard_covers_what_was_under_it() -> None:
    white = np.full((1, 2, 2, 1), 255, np.uint8)
    found = Trigger(pattern="checkerboard", size=2).stamp(white)
    assert found[0, :, :, 0].tolist() == [[255, 0], [0, 255]]


@pytest.mark.parametrize(
    ("corner", "row", "column"),
    [("top-left", 0, 0), ("top-right", 0, 4), ("bottom-left", 3, 0), ("bottom-right", 3, 4)],
)
def test_each_corner_is_where_it_says(corner: Corner, row: int, column: int) -> None:
    found = Trigger(corner=corner, size=1).stamp(BLACK)
    assert np.argwhere(found).tolist() == [[0, row, column, 0]]


def test_the_images_given_are_left_alone() -> None:
    images = BLACK.copy()
    Trigger().stamp(images)
    assert not images.any()


def test_yellow_on_a_grey_image_is_grey_170_and_the_record_says_both() -> None:
    yellow = Trigger(colour=(255, 255, 0))
    assert yellow.stamp(BLACK).max() == 170
    assert yellow.describe(1)["colour"] == [255, 255, 0]
    assert yellow.describe(1)["as_stamped"] == [170]


def test_yellow_on_a_coloured_image_is_yellow_and_grey_is_grey() -> None:
    coloured = np.zeros((1, 3, 3, 3), np.uint8)
    assert Trigger(colour=(255, 255, 0)).stamp(coloured)[0, 0, 0].tolist() == [255, 255, 0]
    assert Trigger(colour=(9,)).stamp(coloured)[0, 0, 0].tolist() == [9, 9, 9]


def test_a_patch_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="a patch of 5 pixels does not fit 4x5 images"):
        Trigger(size=5).stamp(BLACK)


@pytest.mark.parametrize("colour", [(), (1, 2), (256,), (-1, 0, 0)])
def test_an_impossible_colour_is_refused(colour: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="colour is one or three values of 0 to 255"):
        Trigger(colour=colour)


def test_a_patch_of_no_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 pixel, not 0"):
        Trigger(size=0)


def test_a_patch_stands_at_any_row_and_column() -> None:
    trigger = Trigger(place=(1, 2), size=2, colour=(9,))
    assert stamped(trigger) == [[0, 0, 0, 0, 0], [0, 0, 9, 9, 0], [0, 0, 9, 9, 0], [0, 0, 0, 0, 0]]
    assert np.array_equal(trigger.mask(4, 5), trigger.stamp(BLACK)[0, :, :, 0] > 0)
    assert "corner" not in trigger.describe(1) and trigger.describe(1)["place"] == [1, 2]


def test_a_pattern_of_ones_own_leaves_the_pixels_marked_so() -> None:
    grey = np.full((1, 2, 3, 2), 50, np.uint8)
    trigger = Trigger(rows=((7, -1, 0),), corner="top-left")
    found = trigger.stamp(grey)
    assert found[0, :, :, 0].tolist() == found[0, :, :, 1].tolist() == [[7, 50, 0], [50, 50, 50]]
    assert trigger.mask(2, 3).tolist() == [[True, False, True], [False, False, False]]
    assert trigger.describe(2) == {"corner": "top-left", "rows": [[7, -1, 0]]}


def test_opacity_mixes_the_patch_with_what_is_under_it() -> None:
    grey = np.full((1, 2, 2, 1), 100, np.uint8)
    found = Trigger(size=1, colour=(200,), opacity=0.25).stamp(grey)
    assert found[0, :, :, 0].tolist() == [[100, 100], [100, 125]]


def test_a_random_pattern_is_the_same_for_one_seed_and_another_for_another() -> None:
    first, again, other = (Trigger(pattern="random", pattern_seed=seed) for seed in (1, 1, 2))
    assert stamped(first) == stamped(again) != stamped(other)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"place": (-1, 0)}, "place is a row and a column"),
        ({"rows": ((1, 2), (3,))}, "rows must be of one length"),
        ({"rows": ((),)}, "rows must be of one length"),
        ({"rows": ((256,),)}, "rows holds values of 0 to 255"),
        ({"opacity": 0}, "opacity must be above 0"),
        ({"pattern_seed": -1}, "pattern_seed must be at least 0"),
    ],
)
def test_an_impossible_patch_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trigger(**fields)


def test_a_place_too_far_out_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a patch of 2 pixels at \(3, 0\) does not fit 4x5"):
        Trigger(size=2, place=(3, 0)).stamp(BLACK)
