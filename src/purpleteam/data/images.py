"""Images and labels, frozen, uint8, with a digest; how they are dealt to splits, and numbered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.digest import sha256_bytes, sha256_each
from purpleteam.core.errors import DataError, UsageError, unknown
from purpleteam.core.statistics import span
from purpleteam.data.streamed import Images, Streamed, chunks

SPLITS = ("train", "validation", "test")
ALL = "all"  # the split that is all images
LISTED = 10  # most classes whose counts are listed
TWO_CLASSES = "a classifier is measured on images of two classes or more"


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels, in a fixed order.

    Attributes:
        images: uint8, (N, H, W, C); 0 is black, 255 is white. Of a set that does not fit in memory
            they are `Streamed`: `images[rows]` reads these rows.
        labels: int64, (N,).
        files: (N,), the files that they came from, within the folder of the set; None where they
            came from none, or from one for all. No part of the digest.
    """

    images: Images
    labels: NDArray[np.int64]
    files: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        given: dict[str, object] = {"images": images, "labels": labels}
        for name, value in given.items():
            if not isinstance(value, np.ndarray) and not isinstance(value, Streamed):
                kind = type(value).__name__
                remedy = f"{name}.numpy()" if kind == "Tensor" else f"np.array({name})"
                raise DataError(f"{name} must be a NumPy array, not {kind}: {remedy}")
        if images.dtype != np.uint8 or images.ndim != 4:
            hint = f"{images.dtype} {images.shape}{_remedy(images)}"
            raise DataError(f"images must be uint8 (N, H, W, C), not {hint}")
        if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
            hint = ": one-hot? give labels.argmax(1)" if labels.ndim == 2 else ""
            if labels.dtype.kind in "iub" and labels.ndim == 1 and labels.dtype != np.int64:
                hint = ": labels.astype('int64')"
            wanted = f"int64, one for each of {len(images)} images"
            raise DataError(f"labels must be {wanted}, not {labels.dtype} {labels.shape}{hint}")
        if len(labels) and labels.min() < 0:
            raise DataError(f"labels must be at least 0, not {labels.min()}")
        labels.flags.writeable = False
        if not isinstance(images, Streamed):
            images.flags.writeable = False

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, limit: int | None) -> ImageSet:
        """Return the first `limit` images (all where it is None), which is no random sample."""
        if limit is None:
            return self
        if limit < 1:
            raise UsageError(f"--limit must be at least 1, not {limit}")
        return self.part(0, limit)

    def take(self, indices: Sequence[int] | NDArray[Any] | slice) -> ImageSet:
        """Return the images at `indices`, in that order."""
        files = None if self.files is None else self.files[indices]
        pixels = self.images
        images = pixels.take(indices) if isinstance(pixels, Streamed) else pixels[indices]
        return ImageSet(images, self.labels[indices], files)

    def share(self, fraction: float, seed: int, *, rest: bool = False) -> ImageSet:
        """Return this fraction of the images, above 0 and at most 1, drawn by the seed, in order.

        So is a shadow model trained: a random half of the images is in it, and the `rest` is not.
        """
        if not 0 < fraction <= 1:
            raise UsageError(f"--share must be above 0 and at most 1, not {fraction:g}")
        order = np.random.default_rng(seed).permutation(len(self))
        count = max(1, round(fraction * len(self)))
        return self.take(np.sort(order[count:] if rest else order[:count]))

    def part(self, start: int, end: int | None = None) -> ImageSet:
        """Return the images from `start` up to `end`, or all that follow, without a copy."""
        return self.take(slice(start, end))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over shape (as int64), uint8 pixels and int64 labels, little-endian, in order."""
        head, tail = (
            np.ascontiguousarray(a, "<i8").tobytes() for a in (self.images.shape, self.labels)
        )
        pixels = (np.ascontiguousarray(part).reshape(-1).data for _, part in chunks(self.images))
        return sha256_each(chain([head], pixels, [tail]))


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
    """All images of a set that came without splits: by digest, or as the user holds them."""

    def __post_init__(self) -> None:
        count = len(self.classes)
        for name in SPLITS:
            if (label := self.split(name).labels.max(initial=-1)) >= count:
                has = f"{name} holds label {label}, but there are {count} classes, 0 to {count - 1}"
                raise DataError(f"dataset {self.name!r}: {has}")

    def split(self, name: str) -> ImageSet:
        """Return the split `train`, `validation` or `test`, or `all` images."""
        check_split(name)
        return self._all if name == ALL else vars(self)[name]

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
        name, used = f"dataset {self.name!r}", np.unique(self.train.labels)
        if len(used) == 0:
            remedy = "put images into train/<class>/, or leave the splits out to have them dealt"
            raise DataError(f"{name} has no training images, only a test split: {remedy}")
        if len(used) == 1:
            only = f"all {len(self.train)} training images of {name} are of class"
            remedy = "one class alone teaches nothing: bring training images of another"
            raise DataError(f"{only} {self.classes[used[0]]!r}, and {remedy}")

    def summary(self, used: str | None = None) -> str:
        """Return in a line how many images and classes there are, and which of them are used."""
        shown = self.split(used or "train")
        counts = np.bincount(shown.labels, minlength=len(self.classes)).tolist()
        pairs = zip(self.classes[:LISTED], counts, strict=False)
        listed = ", ".join(f"{name} {count}" for name, count in pairs)
        if rest := counts[LISTED:]:
            listed += f", {len(rest)} more with {span(rest)}"
        sizes = ", ".join(f"{name} {len(self.split(name))}" for name in SPLITS)
        which = f"({listed} in {used or 'train'})" + (f"; {used} is used" if used else "")
        if self.whole is None:
            return f"{self.name}: {sizes} images of {len(self.classes)} classes {which}"
        told = f"{self.name}: {len(self.whole)} images of {len(self.classes)} classes"
        if used == ALL:
            return f"{told} ({listed}), no splits: all are used"
        return f"{told}, no splits: dealt by content into {sizes} {which}"

    @cached_property
    def _all(self) -> ImageSet:
        if self.whole is not None:
            return self.whole
        parts = [self.split(name) for name in SPLITS]
        if self.validation is self.test:  # it only stands in for one that is missing
            parts.pop()
        files = [part.files for part in parts if part.files is not None]
        images = [part.images for part in parts]
        arrays = [one for one in images if not isinstance(one, Streamed)]
        return ImageSet(
            np.concatenate(arrays) if len(arrays) == len(images) else Streamed.joined(images),
            np.concatenate([part.labels for part in parts]),
            np.concatenate(files) if len(files) == len(parts) else None,
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width, channels = self.test.images.shape[1:]
        return height, width, channels

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the digests of the three splits."""
        return sha256_bytes(*(self.split(name).digest.encode() for name in SPLITS))


def _remedy(images: NDArray[Any] | Streamed[Any]) -> str:
    kind = images.dtype.kind
    if images.ndim == 3:
        return ": grey images need a last axis, images[..., None]"
    if images.ndim == 4 and kind == "f":
        return ": give pixels from 0 to 255, (255 * images).round().astype('uint8')"
    if kind == "O":
        return ": np.stack(list(images)), of images of one size"
    is_deep = kind == "u" and images.dtype.itemsize == 2
    return ": 16 bits? give (images // 257).astype('uint8')" if is_deep else ""


def check_is_set(images: object) -> None:
    """Refuse what is no set of images with labels, and say how to make one, by a UsageError."""
    kind, remedy = type(images).__name__, "ImageSet(images, labels), of uint8 (N, H, W, C)"
    if isinstance(images, Dataset):
        remedy = "one of its splits, such as dataset.test"
    elif kind == "Tensor":
        remedy = "ImageSet((255 * x).round().byte().permute(0, 2, 3, 1).numpy(), y.numpy())"
    if not isinstance(images, ImageSet):
        raise UsageError(f"images are a {kind}, not an ImageSet: give {remedy}")


OF_ALL = {"train": 0.8, "validation": 0.9, "test": 1.0}  # where each ends in [0, 1)
OF_TRAIN = {"train": 0.9, "validation": 1.0}  # the same when only the validation split is missing
FEWEST = 3  # different images of a class that is in every split
SPLIT_NAMES = {  # in other people's folders and files, in any case
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}


def check_split(name: str) -> None:
    """Refuse what is the name of no split."""
    if name not in (*SPLITS, ALL):
        raise UsageError(unknown("split", name, (*SPLITS, ALL)))


def splits_from(parts: Mapping[str, ImageSet], where: str) -> dict[str, Any]:
    """Return the fields of a Dataset that hold its images, from the splits that there are.

    Where it is not given, an image's split follows from its pixels alone. So the same image is
    never in two splits, and adding images moves none, unless a split would lack a class of three
    different images or more: then it gets the image of that class nearest to it.

        nothing named, or train alone   80 % train, 10 % validation, 10 % test; attack and
                                        evaluate use all images
        train and test                  validation is 10 % of train
        train and validation            validation is the test split, and 10 % of train validates
        test alone, or validation       nothing can be trained; these images also validate

    In `parts`, "" is for images of no split; an empty split counts as absent.
    """
    given = {name: images for name, images in parts.items() if len(images)}
    if "" in given and len(given) > 1:  # such as data_batch_1 beside test_batch
        given["train"] = given.pop("")
    if not given:
        raise DataError(f"{where}: too few images: there is none")
    if len(given) == len(SPLITS):
        return given
    if set(given) in ({""}, {"train"}):
        return _dealt(next(iter(given.values())), OF_ALL, where)
    test = given.get("test") or given["validation"]
    if "train" not in given:
        return {"train": test.part(0, 0), "validation": given.get("validation", test), "test": test}
    return {**_dealt(given["train"], OF_TRAIN, where), "test": test}


def _dealt(images: ImageSet, ends: Mapping[str, float], where: str) -> dict[str, ImageSet]:
    """Return the splits of images by their places, numbers in [0, 1) made of the pixels."""
    form, names = str(images.images.shape[1:]).encode(), list(ends)
    digests = [sha256_bytes(form, pixels.tobytes()) for pixels in images.images]
    places = np.array([int(digest[7:20], 16) / 16**13 for digest in digests])
    if (count := len(np.unique(places))) < len(names):
        few = f"none is in the {names[count]} split when {count} different ones are dealt"
        raise DataError(f"{where}: too few images: {few} to {', '.join(names)}")
    dealt = np.searchsorted(list(ends.values()), places, side="right")
    # Images that are there under another label too: no class moves them by itself.
    pairs = np.unique(np.stack([places, images.labels.astype(np.float64)]), axis=1)
    distinct, counts = np.unique(pairs[0], return_counts=True)
    torn = np.isin(places, distinct[counts > 1])
    for label in np.unique(images.labels):
        own = (images.labels == label) & ~torn
        if len(np.unique(places[own])) >= FEWEST:
            dealt[own] = _cut(places[own], ends)
    if len(np.unique(dealt)) < len(names):  # no class has enough of them
        dealt = _cut(places, ends)
    splits = {name: images.take(np.flatnonzero(dealt == n)) for n, name in enumerate(names)}
    if ends is OF_ALL:
        splits["whole"] = images.take(np.argsort(places, kind="stable"))
    return splits


def _cut(places: NDArray[np.float64], ends: Mapping[str, float]) -> NDArray[np.intp]:
    """Return the number of the split of each image by its place; none is left empty."""
    distinct = np.unique(places)
    cuts: list[int] = []
    for number, end in enumerate(list(ends.values())[:-1], start=1):
        by_place = int(np.searchsorted(distinct, end))
        least = cuts[-1] + 1 if cuts else 1
        cuts.append(min(max(by_place, least), len(distinct) - len(ends) + number))
    return np.searchsorted(cuts, np.searchsorted(distinct, places), side="right")


def class_index(
    labels: Sequence[str], where: str, named: Sequence[str] = (), *, gaps: bool = False
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the classes and the number of each label's; with `gaps` some may have no image."""
    distinct = set(labels)
    if not distinct:
        raise DataError(f"{where}: holds no labels")
    if len(distinct) < 2 and not gaps:
        only = f"all {len(labels)} labels are of one class, {distinct.pop()!r}"
        raise DataError(f"{where}: {only}; {TWO_CLASSES}")
    if not all(label.isascii() and label.removeprefix("-").isdigit() for label in distinct):
        classes = tuple(named) or tuple(sorted(distinct))
        if strangers := distinct - set(classes):
            raise DataError(f"{where}: label {min(strangers)!r} is none of {few(classes, 10)}")
        return classes, {name: number for number, name in enumerate(classes)}
    used = {int(label) for label in distinct}
    low, high = min(used), max(used)
    count = len(named) or (max(high + 1, 2) if gaps else len(used))
    if low < 0:
        raise DataError(f"{where}: label {low} is below 0; labels run from 0")
    if gaps and high >= count:
        known = f"there are {count} classes, 0 to {count - 1}"
        remedy = "give all names or their number as `classes`"
        raise DataError(f"{where}: label {high}, but {known}: {remedy}")
    if used == set(range(1, count + 1)) and not gaps:
        remedy = f"subtract 1 from each, as a net with {count} outputs counts them from 0"
        raise DataError(f"{where}: labels run from 1 to {high}, not from 0: {remedy}")
    if high >= count:
        absent = (number for number in range(high + 1) if number not in used)
        missing = list(islice(absent, 3)) or [count]
        more = high + 1 - len(used) - len(missing)
        lack = ", ".join(map(str, missing)) + (f" and {more} more" if more > 0 else "")
        lack = f"labels run from {low} to {high}, but {lack} of 0 to {high} has no image"
        remedy = "number the classes from 0 without a gap, or list all their names in order in"
        raise DataError(f"{where}: {lack}: {remedy} classes.txt (an array `classes` of an .npz)")
    classes = tuple(named) or tuple(str(number) for number in range(count))
    return classes, {label: int(label) for label in distinct}


def few(names: Iterable[object], most: int = 3) -> str:
    """Return the first few names, and how many more there are."""
    listed = [str(name) for name in names]
    rest = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + rest
