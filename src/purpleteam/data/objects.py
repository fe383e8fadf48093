"""Data sets that are Python objects: arrays, tensors, loaders, MAITE data sets; without torch.

A MAITE data set (https://mit-ll-ai-technology.github.io/maite) has a length, `metadata` with an
`id`, and at each index an image (C, H, W), a one-hot target and metadata. A factory may return one,
a pair (train, test), a triple (train, validation, test), or a mapping from the names of splits.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import DataError, reason_of
from purpleteam.core.factory import call_factory
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.arrays import Parts, images_of, labels_of, nearest_bytes
from purpleteam.data.idx import MAX_BYTES
from purpleteam.data.images import SPLITS, Dataset, ImageSet, class_index, splits_from
from purpleteam.data.streamed import Gathered

ONE_HOT = 1e-6
WHERE = "the given set"
FORMS = (
    "give images and labels as arrays or tensors, an ImageSet, or an iterable of (images, labels) "
    "batches or (image, label) pairs"
)


def dataset_from(
    images: Any,
    labels: Any = None,
    *,
    classes: Sequence[str] | int | None = None,
    name: str = "images",
) -> Dataset:
    """Return a dataset of what the user holds: without splits, used whole and in its order.

    Args:
        images: an `ImageSet`; an array or tensor (N, H, W), (N, H, W, C) or (N, C, H, W), uint8
            or float in [0, 1], with `labels`; or an iterable, such as a torch DataLoader, of
            (images, labels) batches or (image, label) pairs. A `Dataset` is returned as it is,
            and a MAITE data set is read as one.
        labels: (N,) whole numbers from 0 or names, or one-hot rows (N, classes).
        classes: their names in order, or how many there are; by default what the labels show.
        name: of the dataset, in records.

    Raises:
        DataError: the line names what is wrong, the value and the remedy. Floats that are no
            multiples of 1/255 are no error: they are rounded, and `origin` notes it.
    """
    if isinstance(images, Dataset):
        return images
    if _is_maite(images):
        return _of_maite({"": images}, WHERE)
    kind = type(images).__name__
    names = range(classes) if isinstance(classes, int) else classes or ()
    parts = Parts(names=tuple(map(str, names)), quiet=True)
    if isinstance(images, ImageSet):
        if labels is not None:
            raise DataError(f"{WHERE}: an ImageSet has labels: leave `labels` out")
        pixels, labels = images.images, images.labels
    else:
        pixels, labels = _pair(images, labels)
        labels = labels_of("labels", labels, WHERE, parts)
        pixels = images_of("images", pixels, len(labels), WHERE, parts)
    if len(pixels) != len(labels):
        raise DataError(f"{WHERE}: {len(pixels)} images but {len(labels)} labels: give one each")
    if len(labels) == 0:
        raise DataError(f"{WHERE}: holds no image: {FORMS}")
    texts, is_text = labels.astype(str).tolist(), labels.dtype.kind == "U"
    names, index = class_index(texts, WHERE, parts.names, gaps=not is_text)
    if not isinstance(images, ImageSet):
        images = ImageSet(pixels, np.array([index[label] for label in texts], np.int64))
    try:
        splits = splits_from({"": images}, WHERE)
    except DataError:  # fewer than three different images: nothing can be learned from them
        splits = splits_from({"test": images}, WHERE)
    origin = {"object": kind, "notes": tuple(parts.notes)}
    return Dataset(name=name, classes=names, origin=origin, **{**splits, "whole": images})


def _pair(images: Any, labels: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    is_pair = isinstance(images, tuple | list) and len(images) == 2
    if labels is None and is_pair and len(getattr(images[0], "shape", ())) >= 3:
        images, labels = images
    if labels is not None:
        return _array(images, "images"), _array(labels, "labels")
    if hasattr(images, "shape"):
        raise DataError(f"{WHERE}: {type(images).__name__} has images and no labels: {FORMS}")
    if not isinstance(images, Iterable) and hasattr(images, "__len__"):  # torch's own data sets
        images = map(images.__getitem__, range(len(images)))
    if not isinstance(images, Iterable) or isinstance(images, str | bytes | Mapping):
        raise DataError(f"{WHERE} is a {type(images).__name__}: {FORMS}")
    pixels, answers, size, first = [], [], 0, ""
    for number, item in enumerate(images):
        if not isinstance(item, tuple | list) or len(item) < 2:
            raise DataError(f"{WHERE}: item {number} is a {type(item).__name__}: {FORMS}")
        x, y = _array(item[0], f"images of item {number}"), _array(item[1], f"labels of {number}")
        numbered = x.shape[:1] == y.shape and y.dtype.kind != "f"
        if not (x.ndim >= 3 and y.ndim > 0 and (x.ndim > 3 or y.ndim > 1 or numbered)):
            # an image with its label, maybe one-hot
            x, y = x[None], y[None]
        pixels.append(x)
        answers.append(y)
        size += x.size
        form = f"images {x.shape[1:]} and labels {y.shape[1:]}"
        first = first or form
        if form != first:
            remedy = "resize or crop all to one size"
            raise DataError(f"{WHERE}: item {number} has {form}, item 0 {first}: {remedy}")
        if size > MAX_BYTES:
            remedy = "give a memory map, a .npy file or a folder, which are read in batches"
            raise DataError(f"{WHERE}: over {MAX_BYTES} numbers: {remedy}")
    if not pixels:
        raise DataError(f"{WHERE}: holds no image: {FORMS}")
    return np.concatenate(pixels), np.concatenate(answers)


def _array(value: Any, name: str) -> NDArray[Any]:
    """Return an array, a tensor or a list of such as an array of numbers or text."""
    try:
        if isinstance(value, tuple | list) and value and hasattr(value[0], "__array__"):
            return np.stack([_array(part, name) for part in value])
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = value.float() if "bfloat16" in str(value.dtype) else value
        # that of a file stays one, and is read in batches
        array = value if isinstance(value, np.memmap) else np.asarray(value)
    except DataError:
        raise
    except Exception as error:  # whatever somebody's object does
        raise DataError(f"{WHERE}: {name} are no array of one size: {reason_of(error)}") from None
    if array.dtype.kind == "O":
        raise DataError(f"{WHERE}: {name} are Python objects, not numbers: {FORMS}")
    return array


def load_maite(reference: str, *, progress: Progress = SILENT) -> Dataset:
    """Return the data set that `module:factory` makes; see the module for its forms."""
    made = call_factory(reference, DataError)
    if _is_maite(made):
        return _of_maite({"": made}, reference, progress)
    if isinstance(made, tuple | list) and len(made) in (2, 3):
        made = dict(zip(("train", "test") if len(made) == 2 else SPLITS, made, strict=True))
    if not isinstance(made, Mapping) or not all(map(_is_maite, made.values())):
        wanted = "a MAITE data set (a length, items, metadata with an id), a pair, a triple"
        kind = type(made).__name__
        raise DataError(f"{reference!r} returned {kind}, not {wanted} or a mapping of them")
    names = {str(name) for name in made}
    if not {"train", "test"} <= names <= set(SPLITS):
        came = f"returned splits {', '.join(sorted(names)) or 'none'}"
        raise DataError(f"{reference!r} {came}; needed: train and test, with validation or without")
    return _of_maite({name: made[name] for name in SPLITS if name in made}, reference, progress)


def _is_maite(made: object) -> bool:
    metadata = getattr(made, "metadata", None)
    has_items = hasattr(made, "__len__") and hasattr(made, "__getitem__")
    return has_items and isinstance(metadata, Mapping) and "id" in metadata


def _of_maite(splits: Mapping[str, Any], reference: str, progress: Progress = SILENT) -> Dataset:
    piles, scored, rounded = {}, set(), 0
    for name, part in splits.items():
        piles[name], classes, between = _read(part, f"{reference} {name}".strip(), progress)
        scored.add(classes)
        rounded += between
    shapes = {pile.images.shape[1:] for pile in piles.values()}
    if len(shapes) > 1 or len(scored) > 1:
        seen = f"images (H, W, C) {sorted(shapes)}, classes {sorted(scored)}"
        raise DataError(f"{reference!r}: its splits differ: {seen}")
    note = f"{rounded} images of {reference!r} lay between steps of 1/255 and were rounded"
    metadata, count = next(iter(splits.values())).metadata, scored.pop()
    named = metadata.get("index2label") or {number: number for number in range(count)}
    if set(named) != set(range(count)):
        names = f"index2label names {len(named)} labels, its targets have {count}"
        raise DataError(f"{reference!r}: {names}")
    return Dataset(
        name=str(metadata["id"]),
        classes=tuple(str(named[number]) for number in range(count)),
        origin={"maite": reference, "notes": (note,) if rounded else ()},
        **splits_from(piles, reference),
    )


def _read(dataset: Any, where: str, progress: Progress) -> tuple[ImageSet, int, int]:
    """Return the images, the number of classes, and how many images had to be rounded."""
    gathered, shape = Gathered(), tuple[int, ...]()
    labels, rounded, classes = [], 0, 0

    def item(index: int) -> tuple[NDArray[np.uint8], int, NDArray[np.float64]]:
        place = f"{where}, item {index}"
        try:
            image, target, _ = dataset[index]
            image, target = np.asarray(image), np.asarray(target, np.float64)
        except Exception as error:  # anybody's code
            why = reason_of(error)
            raise DataError(f"{place}: no image, target and metadata: {why}") from None
        return *_bytes(image, place), target

    with progress.task(f"reading {where}", len(dataset)) as task:
        for index in range(len(dataset)):
            place = f"{where}, item {index}"
            pixels, between, target = item(index)
            if target.ndim != 1 or len(target) < 2 or len(target) != (classes or len(target)):
                form = f"({classes},)" if classes else "(classes,), two or more"
                raise DataError(f"{place}: a target is {form}, not {target.shape}")
            classes = len(target)
            labels.append(int(target.argmax()))
            if not abs(target - np.eye(classes)[labels[-1]]).max() <= ONE_HOT:
                raise DataError(f"{place}: the target is not one-hot")
            gathered.add(pixels)
            rounded, shape = rounded + between, shape or pixels.shape
            if pixels.shape != shape:
                sides = [f"{w}x{h}x{c}" for h, w, c in (pixels.shape, shape)]
                raise DataError(f"{place}: {sides[0]}, but item 0: {sides[1]}; all must be alike")
            task.advance()
    if not labels:
        raise DataError(f"{where}: holds no image")
    pictures = gathered.images(
        range(len(labels)), lambda index: item(index)[0], lambda index: f"{where}, item {index}"
    )
    return ImageSet(pictures, np.array(labels, np.int64)), classes, rounded


def _bytes(image: NDArray[Any], place: str) -> tuple[NDArray[np.uint8], int]:
    """Return an image (C, H, W) as uint8 (H, W, C), and 1 where it had to be rounded."""
    if image.ndim != 3 or 0 in image.shape:
        raise DataError(f"{place}: an image is (C, H, W), not {image.shape}")
    if image.shape[0] > 4 and image.shape[2] in (1, 3):
        raise DataError(f"{place}: an image is (C, H, W), and {image.shape} looks like (H, W, C)")
    upright = np.moveaxis(image, 0, 2)
    low, high = upright.min(), upright.max()
    if image.dtype.kind in "ui" and low >= 0 and high <= 255:
        return np.ascontiguousarray(upright, np.uint8), 0
    if image.dtype.kind != "f" or not (low >= 0 and high <= 1):  # NaN is in no range
        wanted = (
            "whole numbers from 0 to 255 or floats from 0 to 1; leave normalisation to the model"
        )
        raise DataError(f"{place}: {image.dtype} from {low} to {high}, not {wanted}")
    pixels, rounded = nearest_bytes(upright[None])
    return pixels[0], rounded
