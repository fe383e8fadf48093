"""Images and labels as they lie on disk: frozen, uint8, with a digest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import DataError, UsageError, unknown

__all__ = ["SPLITS", "Dataset", "ImageSet"]

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels, in a fixed order.

    Attributes:
        images: uint8, (N, H, W, C); 0 is black, 255 is white.
        labels: int64, (N,).
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise DataError(f"images must be uint8 (N, H, W, C), not {_form(self.images)}")
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"labels must be int64, one for each of {len(self.images)} images, "
                f"not {_form(self.labels)}"
            )
        self.images.flags.writeable = False
        self.labels.flags.writeable = False

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, limit: int | None) -> ImageSet:
        """Return the first `limit` images (all where it is None), which is no random sample."""
        if limit is None:
            return self
        if limit < 1:
            raise UsageError(f"--limit must be at least 1, not {limit}")
        return ImageSet(self.images[:limit], self.labels[:limit])

    def take(self, indices: Sequence[int] | NDArray[Any]) -> ImageSet:
        """Return the images at `indices`, in that order."""
        return ImageSet(self.images[indices], self.labels[indices])

    def part(self, start: int, end: int | None = None) -> ImageSet:
        """Return the images from `start` up to `end`, or all that follow, without a copy."""
        return ImageSet(self.images[start:end], self.labels[start:end])

    @cached_property
    def digest(self) -> str:
        """SHA-256 over shape (as int64), uint8 pixels and int64 labels, little-endian, in order."""
        return sha256_bytes(
            np.asarray(self.images.shape, "<i8").tobytes(),
            np.ascontiguousarray(self.images).tobytes(),
            np.ascontiguousarray(self.labels, "<i8").tobytes(),
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three fixed splits of one kind of image. Choose on validation; test is the last look."""

    name: str
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Where it is from: folder, file digests, licence, manifest of a poisoned set."""

    def split(self, name: str) -> ImageSet:
        """Return the split `train`, `validation` or `test`."""
        if name not in SPLITS:
            raise UsageError(unknown("split", name, SPLITS))
        found: ImageSet = getattr(self, name)
        return found

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.test.images.shape[1:]
        return height, width, channels

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the digests of the three splits."""
        return sha256_bytes(*(self.split(name).digest.encode() for name in SPLITS))


def _form(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"
