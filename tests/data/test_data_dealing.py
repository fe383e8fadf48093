"""Images that come without splits are dealt class by class, by their pixels alone."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from purpleteam.data.images import FEWEST, SPLITS, ImageSet, splits_from

COUNTS = st.lists(st.integers(0, 40), min_size=2, max_size=50).filter(
    lambda counts: max(counts) >= FEWEST
)
PILES = pytest.mark.parametrize(("name", "parts"), [("", SPLITS), ("train", SPLITS[:2])])


def drawn(counts: list[int], seed: int, *, twice: int = 0) -> ImageSet:
    """So many images of each class; the first few again, under the label of the next class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (len(labels), 4, 3, 1)).astype(np.uint8)
    again = (labels[:twice] + 1) % len(counts)
    return ImageSet(np.concatenate([images, images[:twice]]), np.concatenate([labels, again]))


def dealt(pile: ImageSet, name: str) -> dict[str, ImageSet]:
    """The parts that the pile was dealt into; beside training images there is a test split."""
    given_too = {} if name == "" else {"test": drawn([5, 5], 99)}
    found = splits_from({name: pile, **given_too}, "here")
    return {one: found[one] for one in (SPLITS if name == "" else SPLITS[:2])}


def pixels(part: ImageSet) -> set[bytes]:
    return {one.tobytes() for one in part.images}


@PILES
@given(counts=COUNTS, seed=st.integers(0, 999))
@settings(max_examples=40)
def test_no_split_lacks_a_class_of_three_images(
    name: str, parts: tuple[str, ...], counts: list[int], seed: int
) -> None:
    found = dealt(drawn(counts, seed), name)
    for part in parts:
        of_class = np.bincount(found[part].labels, minlength=len(counts))
        lacking = [one for one, count in enumerate(counts) if count >= FEWEST and not of_class[one]]
        assert lacking == [], part


@PILES
@given(counts=COUNTS, seed=st.integers(0, 999), twice=st.integers(0, 20))
@settings(max_examples=40)
def test_every_image_is_in_one_split_whatever_its_labels_and_their_order(
    name: str, parts: tuple[str, ...], counts: list[int], seed: int, twice: int
) -> None:
    pile = drawn(counts, seed, twice=min(twice, sum(counts)))
    found = dealt(pile, name)
    assert sum(len(found[part]) for part in parts) == len(pile)
    assert sum(len(pixels(found[part])) for part in parts) == len(pixels(pile))
    turned = dealt(pile.take(np.arange(len(pile))[::-1]), name)
    assert all(pixels(turned[part]) == pixels(found[part]) for part in parts)


@given(more=st.lists(st.integers(0, 40), min_size=2, max_size=9), seed=st.integers(0, 999))
@settings(max_examples=20)
def test_images_that_are_added_move_none(more: list[int], seed: int) -> None:
    # So many of a class that no split lacks it by place alone: then images are moved on purpose.
    kept, added = drawn([300, 300, 300], seed), drawn(more, seed + 1000)
    before = dealt(kept, "")
    both = ImageSet(
        np.concatenate([kept.images, added.images]), np.concatenate([kept.labels, added.labels])
    )
    after = dealt(both, "")
    assert all(pixels(before[part]) <= pixels(after[part]) for part in SPLITS)


def test_a_balanced_set_is_dealt_by_place_alone() -> None:
    found = dealt(drawn([100] * 10, 0), "")
    assert {part: len(found[part]) for part in SPLITS} == {
        "train": 785, "validation": 96, "test": 119,
    }  # fmt: skip
