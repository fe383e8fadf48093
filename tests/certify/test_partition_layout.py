"""Which part an image falls into is decided by its pixels, and by nothing else in the set."""

from __future__ import annotations

import numpy as np
import pytest

from purpleteam.certify.dpa import Layout, deal
from purpleteam.core.errors import UsageError
from purpleteam.data.images import ImageSet

LAYOUT = Layout(parts=7, capacity=100)


def noise(count: int, seed: int = 0) -> ImageSet:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 5, 4, 3), np.uint8)
    return ImageSet(images, rng.integers(0, 10, count))


def contents(images: ImageSet, layout: Layout) -> list[list[tuple[bytes, int]]]:
    """Return pixels and label of every image of every part, in order."""
    return [
        [(images.images[i].tobytes(), int(images.labels[i])) for i in part]
        for part in deal(images, layout)
    ]


def test_every_image_is_in_one_part() -> None:
    indices = np.concatenate(deal(noise(200), LAYOUT))
    assert sorted(indices) == list(range(200))


def test_the_parts_do_not_depend_on_the_order_of_the_set() -> None:
    images, order = noise(200), np.random.default_rng(1).permutation(200)
    assert contents(images, LAYOUT) == contents(images.take(order), LAYOUT)


def test_a_label_moves_no_image_to_another_part() -> None:
    images = noise(200)
    relabelled = ImageSet(images.images, (images.labels + 1) % 10)
    for before, after in zip(deal(images, LAYOUT), deal(relabelled, LAYOUT)):
        assert before.tolist() == after.tolist()


def test_twins_with_two_labels_are_in_one_part_whatever_their_order() -> None:
    image = noise(1).images
    twins = ImageSet(np.concatenate([image, image]), np.array([4, 2]))
    assert contents(twins, LAYOUT) == contents(twins.take([1, 0]), LAYOUT)
    assert max(map(len, deal(twins, LAYOUT))) == 2


def test_an_inserted_image_reaches_one_part_even_where_all_are_full() -> None:
    full = Layout(parts=7, capacity=10)
    images, more = noise(200), noise(20, seed=1)
    before = contents(images, full)
    assert [len(part) for part in before] == [10] * 7
    for one in range(20):
        pixels = np.concatenate([more.images[one : one + 1], images.images])
        labels = np.concatenate([more.labels[one : one + 1], images.labels])
        after = contents(ImageSet(pixels, labels), full)
        assert sum(a != b for a, b in zip(before, after)) <= 1


@pytest.mark.parametrize("parts", [None, 5, 40])
@pytest.mark.parametrize("images", [40, 200, 1297])
def test_a_chosen_layout_holds_exactly_as_long_as_the_same_one_would_be_chosen(
    images: int, parts: int | None
) -> None:
    def chosen(size: int) -> tuple[int, int]:
        layout = Layout.of(size, parts=parts)
        return layout.parts, layout.capacity

    within = Layout.of(images, parts=parts).holds_within
    assert within is not None
    smallest = 1 if parts is None else parts
    for change in range(min(within, images - smallest) + 1):
        assert chosen(images - change) == chosen(images + change) == chosen(images)
    if within < images - smallest - 1:
        assert not chosen(images - within - 1) == chosen(images + within + 1) == chosen(images)


def test_numbers_that_were_given_hold_for_every_training_set() -> None:
    assert Layout.of(1297, parts=50, capacity=64).holds_within is None


def test_mnist_gets_parts_of_about_27_images() -> None:
    assert Layout.of(55_000) == Layout(parts=2048, capacity=64, holds_within=11_309)


@pytest.mark.parametrize("parts", [0, 41])
def test_no_parts_and_more_parts_than_images_are_refused(parts: int) -> None:
    with pytest.raises(UsageError, match=f"parts must be from 1 to 40.* not {parts}"):
        Layout.of(40, parts=parts)
