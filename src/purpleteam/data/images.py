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

SPLITS = ("train", "validation", "test")
ALL = "all"
"""The split that is all images."""
LISTED = 10
"""Most classes whose counts are listed."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels, in a fixed order.

    Attributes:
        images: uint8, (N, H, W, C); 0 is black, 255 is white.
        labels: int64, (N,).
        files: (N,), the files that they came from, within the folder of the set; None where they
            came from none, or from one for all. No part of the digest.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    files: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        given: dict[str, object] = {"images": self.images, "labels": self.labels}
        for name, value in given.items():
            if not isinstance(value, np.ndarray):
                kind = type(value).__name__
                remedy = f"{name}.numpy()" if kind == "Tensor" else f"np.array({name})"
                raise DataError(f"{name} must be a NumPy array, not {kind}: {remedy}")
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise DataError(
                f"images must be uint8 (N, H, W, C), not {self.images.dtype} "
                f"{self.images.shape}{_remedy(self.images)}"
            )
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            hint = ": one-hot? give labels.argmax(1)" if self.labels.ndim == 2 else ""
            if self.labels.dtype.kind in "iub" and self.labels.ndim == 1:
                hint = ": labels.astype('int64')" if self.labels.dtype != np.int64 else ""
            raise DataError(
                f"labels must be int64, one for each of {len(self.images)} images, "
                f"not {self.labels.dtype} {self.labels.shape}{hint}"
            )
        if len(self.labels) and self.labels.min() < 0:
            raise DataError(f"labels must be at least 0, not {self.labels.min()}")
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
        return self.part(0, limit)

    def take(self, indices: Sequence[int] | NDArray[Any]) -> ImageSet:
        """Return the images at `indices`, in that order."""
        files = None if self.files is None else self.files[indices]
        return ImageSet(self.images[indices], self.labels[indices], files)

    def part(self, start: int, end: int | None = None) -> ImageSet:
        """Return the images from `start` up to `end`, or all that follow, without a copy."""
        files = None if self.files is None else self.files[start:end]
        return ImageSet(self.images[start:end], self.labels[start:end], files)

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
    whole: ImageSet | None = None
    """All images, in the order of their digests, of a set that came without splits."""

    def __post_init__(self) -> None:
        for name in SPLITS:
            labels = self.split(name).labels
            if len(labels) and labels.max() >= len(self.classes):
                raise DataError(
                    f"dataset {self.name!r}: {name} holds label {labels.max()}, but there are "
                    f"{len(self.classes)} classes, 0 to {len(self.classes) - 1}"
                )

    def split(self, name: str) -> ImageSet:
        """Return the split `train`, `validation` or `test`, or `all` images."""
        if name not in (*SPLITS, ALL):
            raise UsageError(unknown("split", name, (*SPLITS, ALL)))
        images: ImageSet = getattr(self, "_all" if name == ALL else name)
        return images

    @property
    def tested(self) -> str:
        """The split that measures a model from elsewhere: all images where none was set aside."""
        return "test" if self.whole is None else ALL

    @property
    def searched(self) -> str:
        """The split that is searched for poisoned images: all where none was set aside."""
        return "train" if self.whole is None else ALL

    def check_trainable(self) -> None:
        """Refuse a set that has nothing to learn from: no training images, or one class alone."""
        if len(self.train) == 0:
            raise DataError(
                f"dataset {self.name!r} has no training images, only a test split: put images "
                "into train/<class>/, or leave the splits out to have them dealt"
            )
        if (self.train.labels == self.train.labels[0]).all():
            only = self.classes[self.train.labels[0]]
            raise DataError(
                f"all {len(self.train)} training images of dataset {self.name!r} are of class "
                f"{only!r}, and one class alone teaches nothing: bring training images of another"
            )

    def summary(self, used: str | None = None) -> str:
        """Return in a line how many images and classes there are, and which of them are used."""
        shown = self.split(used or "train")
        counts = np.bincount(shown.labels, minlength=len(self.classes)).tolist()
        listed = ", ".join(
            f"{name} {count}" for name, count in zip(self.classes[:LISTED], counts, strict=False)
        )
        if len(counts) > LISTED:
            rest = counts[LISTED:]
            listed += f", {len(rest)} more with {min(rest)} to {max(rest)} each"
        sizes = ", ".join(f"{name} {len(self.split(name))}" for name in SPLITS)
        kinds = f"{len(self.classes)} classes"
        which = f"({listed} in {used or 'train'})" + (f"; {used} is used" if used else "")
        if self.whole is None:
            return f"{self.name}: {sizes} images of {kinds} {which}"
        whole = f"{self.name}: {len(self.whole)} images of {kinds}"
        if used == ALL:
            return f"{whole} ({listed}), no splits: all are used"
        return f"{whole}, no splits: dealt by content into {sizes} {which}"

    @cached_property
    def _all(self) -> ImageSet:
        if self.whole is not None:
            return self.whole
        parts = [self.split(name) for name in SPLITS]
        if self.validation is self.test:  # it only stands in for one that is missing
            parts.pop()
        files = [part.files for part in parts if part.files is not None]
        return ImageSet(
            np.concatenate([part.images for part in parts]),
            np.concatenate([part.labels for part in parts]),
            np.concatenate(files) if len(files) == len(parts) else None,
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.test.images.shape[1:]
        return height, width, channels

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the digests of the three splits."""
        return sha256_bytes(*(self.split(name).digest.encode() for name in SPLITS))


def _remedy(images: NDArray[Any]) -> str:
    if images.ndim == 3:
        return ": grey images need a last axis, images[..., None]"
    if images.ndim == 4 and images.dtype.kind == "f":
        return ": give pixels from 0 to 255, (255 * images).round().astype('uint8')"
    if images.dtype.kind == "O":
        return ": np.stack(list(images)), of images of one size"
    if images.dtype.itemsize == 2 and images.dtype.kind == "u":
        return ": 16 bits? give (images // 257).astype('uint8')"
    return ""


def check_is_set(images: object) -> None:
    """Refuse what is no set of images with labels, and say how to make one.

    Raises:
        UsageError: the line says what came and what is wanted.
    """
    if isinstance(images, ImageSet):
        return
    kind, remedy = type(images).__name__, "ImageSet(images, labels), of uint8 (N, H, W, C)"
    if isinstance(images, Dataset):
        remedy = "one of its splits, such as dataset.test"
    elif kind == "Tensor":
        remedy = "ImageSet((255 * x).round().byte().permute(0, 2, 3, 1).numpy(), y.numpy())"
    raise UsageError(f"images are a {kind}, not an ImageSet: give {remedy}")
