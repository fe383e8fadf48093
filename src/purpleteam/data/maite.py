"""Data sets that follow MAITE's protocol, without depending on the package.

A MAITE data set (https://mit-ll-ai-technology.github.io/maite) has a length, `metadata` with an
`id`, and at each index an image (C, H, W), a one-hot target and the datum's metadata. The factory
may return one, which is dealt out 80/10/10; a pair (train, test) or a triple (train, validation,
test); or a mapping from the names of the splits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import DataError
from purpleteam.core.factory import call_factory
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.dealing import splits_from
from purpleteam.data.idx import MAX_BYTES
from purpleteam.data.images import SPLITS, Dataset, ImageSet

LEVELS = 255
ON_GRID = 1e-3
"""How far from a whole number of 255ths a float pixel may be and still count as one."""
ONE_HOT = 1e-6


@dataclass(frozen=True, eq=False)
class _Pile:
    """Images of one MAITE data set, read."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: int
    rounded: int
    """Images that lay between steps of 1/255."""


def load_maite(reference: str, *, progress: Progress = SILENT) -> Dataset:
    """Return the data set that `module:factory` makes; see the module for its forms.

    Raises:
        DataError: the factory fails, or what it returns is no MAITE data set of images.
    """
    parts = _parts(call_factory(reference, DataError), reference)
    piles = {name: _read(part, f"{reference} {name}".strip(), progress) for name, part in parts}
    shapes = {pile.images.shape[1:] for pile in piles.values()}
    scored = {pile.classes for pile in piles.values()}
    if len(shapes) > 1 or len(scored) > 1:
        raise DataError(
            f"{reference!r}: its splits differ: images (H, W, C) {sorted(shapes)}, "
            f"classes {sorted(scored)}"
        )
    rounded = sum(pile.rounded for pile in piles.values())
    note = f"{rounded} images of {reference!r} lay between steps of 1/255 and were rounded"
    metadata = parts[0][1].metadata
    return Dataset(
        name=str(metadata["id"]),
        classes=_classes(metadata, scored.pop(), reference),
        origin={"maite": reference, "notes": (note,) if rounded else ()},
        **splits_from(
            {name: ImageSet(pile.images, pile.labels) for name, pile in piles.items()}, reference
        ),
    )


def _parts(made: Any, reference: str) -> list[tuple[str, Any]]:
    """Return the data sets that the factory returned, by split; "" is for all of them."""
    if _is_dataset(made):
        return [("", made)]
    if isinstance(made, tuple | list) and len(made) in (2, 3):
        made = dict(zip(("train", "test") if len(made) == 2 else SPLITS, made, strict=True))
    if not isinstance(made, Mapping) or not all(map(_is_dataset, made.values())):
        raise DataError(
            f"{reference!r} returned {type(made).__name__}, not a MAITE data set (a length, items, "
            "metadata with an id), a pair, a triple or a mapping of them"
        )
    names = {str(name) for name in made}
    if not {"train", "test"} <= names <= set(SPLITS):
        raise DataError(
            f"{reference!r} returned splits {', '.join(sorted(names)) or 'none'}; needed: train "
            "and test, with validation or without"
        )
    return [(name, made[name]) for name in SPLITS if name in made]


def _is_dataset(made: object) -> bool:
    metadata = getattr(made, "metadata", None)
    has_items = hasattr(made, "__len__") and hasattr(made, "__getitem__")
    return has_items and isinstance(metadata, Mapping) and "id" in metadata


def _read(dataset: Any, where: str, progress: Progress) -> _Pile:
    images: list[NDArray[np.uint8]] = []
    labels, rounded, classes, size = [], 0, 0, 0
    with progress.task(f"reading {where}", len(dataset)) as task:
        for index in range(len(dataset)):
            place = f"{where}, item {index}"
            try:
                image, target, _ = dataset[index]
                pixels, target = np.asarray(image), np.asarray(target, np.float64)
            except Exception as error:  # anybody's code
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                raise DataError(f"{place}: no image, target and metadata: {reason}") from None
            pixels, between = _bytes(pixels, place)
            labels.append(_label(target, classes, place))
            images.append(pixels)
            classes, rounded, size = len(target), rounded + between, size + pixels.size
            if pixels.shape != images[0].shape:
                sides = [f"{w}x{h}x{c}" for h, w, c in (pixels.shape, images[0].shape)]
                raise DataError(f"{place}: {sides[0]}, but item 0: {sides[1]}; all must be alike")
            if size > MAX_BYTES:
                raise DataError(f"{where}: over {MAX_BYTES} bytes of pixels")
            task.advance()
    if not images:
        raise DataError(f"{where}: holds no image")
    return _Pile(np.stack(images), np.array(labels, np.int64), classes, rounded)


def _bytes(image: NDArray[Any], place: str) -> tuple[NDArray[np.uint8], bool]:
    """Return an image (C, H, W) as uint8 (H, W, C), and whether it had to be rounded."""
    if image.ndim != 3 or 0 in image.shape:
        raise DataError(f"{place}: an image is (C, H, W), not {image.shape}")
    if image.shape[0] > 4 and image.shape[2] in (1, 3):
        raise DataError(f"{place}: an image is (C, H, W), and {image.shape} looks like (H, W, C)")
    upright = np.moveaxis(image, 0, 2)
    low, high = upright.min(), upright.max()
    if image.dtype.kind in "ui" and low >= 0 and high <= LEVELS:
        return np.ascontiguousarray(upright, np.uint8), False
    if image.dtype.kind != "f" or not (low >= 0 and high <= 1):  # NaN is in no range
        raise DataError(
            f"{place}: {image.dtype} from {low} to {high}, not whole numbers from 0 to 255 or "
            "floats from 0 to 1; leave normalisation to the model"
        )
    steps = upright.astype(np.float64) * LEVELS
    nearest = np.rint(steps)
    near = max(ON_GRID, LEVELS * float(np.spacing(image.dtype.type(1))))
    return nearest.astype(np.uint8), bool(abs(steps - nearest).max() > near)


def _label(target: NDArray[np.float64], classes: int, place: str) -> int:
    if target.ndim != 1 or len(target) < 2 or (classes and len(target) != classes):
        form = f"({classes},)" if classes else "(classes,), two or more"
        raise DataError(f"{place}: a target is {form}, not {target.shape}")
    label = int(target.argmax())
    rest = target.copy()
    rest[label] -= 1
    if not abs(rest).max() <= ONE_HOT:
        raise DataError(f"{place}: the target is not one-hot")
    return label


def _classes(metadata: Mapping[str, Any], count: int, reference: str) -> tuple[str, ...]:
    named = metadata.get("index2label")
    if not named:
        return tuple(str(number) for number in range(count))
    if set(named) != set(range(count)):
        raise DataError(
            f"{reference!r}: index2label names {len(named)} labels, its targets have {count}"
        )
    return tuple(str(named[number]) for number in range(count))
