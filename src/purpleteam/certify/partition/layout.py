"""Which part an image falls into: its own pixels decide, and nothing else does.

The parts and their order come from SHA-256 of the pixels, so an image that is inserted or removed
moves no other. How many parts there are, and how many images one takes, must not follow the
training set either: numbers that are chosen here are powers of two, and the certificate ends
where another size of the training set would have chosen another power.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import UsageError
from purpleteam.data.images import ImageSet

__all__ = ["IMAGES_IN_A_PART", "Layout", "deal"]

IMAGES_IN_A_PART = 27
"""Chosen on MNIST's validation split: fewer images make worse models, more images fewer votes."""
ROOM = 1.5  # a part's images are Poisson distributed: a part of 27 all but never holds 64
SMALLEST = 8


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a training set is cut into parts.

    Attributes:
        parts: number of disjoint parts.
        capacity: images that a part takes; those of the highest digests are left out.
        holds_within: images by which the training set may grow or shrink before `of` would have
            chosen other numbers; None where they were given and so hold for every set.
    """

    parts: int
    capacity: int
    holds_within: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("parts", self.parts), ("capacity", self.capacity)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")

    @classmethod
    def of(cls, images: int, *, parts: int | None = None, capacity: int | None = None) -> Layout:
        """Return the layout for a training set of so many images.

        Args:
            images: size of the training set, at least 1.
            parts: number of parts, where it was chosen without a look at the training set.
            capacity: images that a part takes, where chosen so.
        """
        if parts is not None and not 1 <= parts <= images:
            raise UsageError(f"parts must be from 1 to {images}, the training images, not {parts}")
        chosen = _chosen(images, parts, capacity)
        if parts is not None and capacity is not None:
            return cls(parts=chosen[0], capacity=chosen[1])
        low, high = 0, images - 1
        while low < high:  # the largest change of size that leaves the choice as it is
            middle = (low + high + 1) // 2
            sizes = (images - middle, images + middle)
            if all(_chosen(size, parts, capacity) == chosen for size in sizes):
                low = middle
            else:
                high = middle - 1
        return cls(parts=chosen[0], capacity=chosen[1], holds_within=low)


def deal(images: ImageSet, layout: Layout) -> list[NDArray[np.int64]]:
    """Return for each part the indices of its images, in the order of their digests.

    Two entries of the same pixels fall into the same part, the smaller label first, so that a
    part is a function of the images in it alone and not of their places in the set.
    """
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images.images]
    order = sorted(range(len(digests)), key=lambda i: (digests[i], int(images.labels[i])))
    parts: list[list[int]] = [[] for _ in range(layout.parts)]
    for index in order:
        parts[int.from_bytes(digests[index]) % layout.parts].append(index)
    return [np.array(part[: layout.capacity], np.int64) for part in parts]


def _chosen(images: int, parts: int | None, capacity: int | None) -> tuple[int, int]:
    """Return parts and capacity; both only grow or only fall with the number of images."""
    if parts is None:
        parts = min(images, 2 ** max(0, round(math.log2(images / IMAGES_IN_A_PART))))
    if capacity is None:
        capacity = max(SMALLEST, 2 ** math.ceil(math.log2(max(1.0, ROOM * images / parts))))
    return parts, capacity
