"""Files of arrays: .npz, .npy and pickled ones, as Keras, scikit-learn and CIFAR have them.

Which array is what is told by its name and form:

    images, x, data, ...            uint8, 16 bits, or floats in [0, 1] or [0, 255]; (N, H, W),
                                    (N, H, W, C), (N, C, H, W), (H, W, C, N) or flat as CIFAR's
    labels, y, target, ...          numbers from 0, names, or one-hot rows
    train, test, val, ... in a name the split;  classes, label_names: what the classes are called

In a folder every file is read, and a file's name may say the split or the array. Each guess is
noted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import DataError, Refused
from purpleteam.data.images import SPLIT_NAMES, Dataset, ImageSet, splits_from
from purpleteam.data.labels import class_index
from purpleteam.data.pictures import few

Arrays = Mapping[str, NDArray[Any]]
ArraysReader = Callable[[Path], Arrays]
"""Reads a file of arrays, by name; a single one is called `array`."""

ENDS = (".npz", ".npy", ".pkl", ".pickle")
CIFAR = re.compile(r"(data_batch_\d+|test_batch|batches\.meta|train|test|meta)$")
"""The files of CIFAR-10 and CIFAR-100, which have no ending."""
WRITE_IT = "write it as np.savez('set.npz', x=images, y=labels)"
READ_PICKLED = "read_arrays=purpleteam.scan.formats.read_arrays reads it without"
NO_OBJECTS = "give numbers or text, such as np.stack(x).astype('uint8')"
IMAGES = ("images", "image", "imgs", "img", "x", "data", "pixels", "inputs")
LABELS = ("labels", "label", "y", "targets", "target")
NAMES = ("classes", "class_names", "label_names", "fine_label_names", "target_names")
MAX_ENTRIES = 1 << 30
ROUNDING = 1e-3
"""How far above 1 a float may be and still be meant as white."""
ON_GRID = 1e-3
"""How far from a whole number of 255ths a float pixel may be and still count as one."""
OVER = 2
"""Floats up to here are no pixels from 0 to 255, all of which would be black."""


@dataclass
class Parts:
    """What the arrays of a set turned out to be."""

    images: dict[str, list[NDArray[np.uint8]]] = field(default_factory=dict)
    labels: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    quiet: bool = False
    """Whether floats in [0, 1] and channels first need no note: in memory they are usual."""


def plain_arrays(path: Path) -> Arrays:
    """Return the arrays of an .npz or .npy file; objects are refused, nothing is unpickled."""
    try:
        with path.open("rb") as file:  # NumPy leaves open what it opened and cannot read
            head = file.read(6)
            if not (head.startswith(b"PK") or head == b"\x93NUMPY"):
                if head.startswith(b"\x80"):
                    why = f"pickled, and unpickling runs what it says: {READ_PICKLED}"
                elif head.startswith(b"\x1f\x8b"):
                    why = "packed by gzip: unpack it with gunzip first"
                else:
                    why = f"{'no .npz and no .npy file' if head else 'empty'}: {WRITE_IT}"
                raise Refused(f"data file {str(path)!r} is refused: it is {why}")
            file.seek(0)
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return {"array": content}
            with content:
                return {name: content[name] for name in content.files}
    except Refused:
        raise
    except OSError as error:
        why = f"it cannot be read: {error.strerror or error}"
    except Exception as error:  # NumPy and zipfile raise much on a broken or hostile file
        if "Object arrays" in str(error):
            why = f"an array in it holds Python objects, which would be unpickled: {NO_OBJECTS}"
        else:
            why = f"it is broken or cut off ({type(error).__name__}): get it again, or {WRITE_IT}"
    raise Refused(f"data file {str(path)!r} is refused: {why}")


def is_array_file(path: Path) -> bool:
    """Say whether a path is a file of arrays by its name."""
    return path.suffix.lower() in ENDS and path.is_file()


def array_files(folder: Path) -> list[Path]:
    """Return the files of arrays that a folder holds, where these are what it holds."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    return [path for path in files if is_array_file(path)] or [
        path for path in files if CIFAR.fullmatch(path.name)
    ]


def load_arrays(path: Path, read: ArraysReader) -> Dataset:
    """Return the dataset in a file of arrays, or in a folder of such files.

    Raises:
        DataError: images and labels cannot be told apart or do not fit; what came is listed.
        Refused: a file holds anything but numbers and text.
    """
    arrays: dict[str, dict[str, NDArray[Any]]] = {}
    for file in [path] if path.is_file() else array_files(path):
        alone = file.suffix.lower() == ".npy" and path.is_dir()
        for name, array in read(file).items():
            key = file.stem if alone else name
            arrays.setdefault("" if alone else file.stem, {})[key] = array
    parts = Parts()
    for stem, group in arrays.items():
        inherited = _split_in(stem) if path.is_dir() else None
        _sort(group, inherited or "", str(path if path.is_file() else path / stem), parts)
    if not parts.images:
        raise DataError(f"{path}: holds no images; {_listed(arrays)}")
    if len({array.shape[1:] for listed in parts.images.values() for array in listed}) > 1:
        shapes = {name: listed[0].shape[1:] for name, listed in parts.images.items()}
        raise DataError(f"{path}: images are of several sizes (H, W, C): {shapes}")
    joined = {name: np.concatenate(listed) for name, listed in parts.labels.items()}
    every = np.concatenate([labels.astype(str) for labels in joined.values()]).tolist()
    classes, index = class_index(every, str(path), parts.names)
    piles = {
        name: ImageSet(
            np.concatenate(listed),
            np.array([index[label] for label in joined[name].astype(str).tolist()], np.int64),
        )
        for name, listed in parts.images.items()
    }
    return Dataset(
        name=path.resolve().stem,
        classes=classes,
        origin={"file": str(path), "notes": tuple(dict.fromkeys(parts.notes))},
        **splits_from(piles, str(path)),
    )


def _sort(arrays: Arrays, inherited: str, where: str, parts: Parts) -> None:
    """Put each array of one file to where it belongs: images, labels or names, by split."""
    pairs: dict[str, dict[str, tuple[str, NDArray[Any]]]] = {}
    for name, array in arrays.items():
        is_list = array.ndim == 1 and array.dtype.kind in "US"
        if name.lower().rpartition("/")[2] in NAMES and is_list:
            parts.names = tuple(array.astype(str).tolist())
            continue
        kind = _kind(name, array, arrays)
        if kind is None or (kind != _kind_by_name(name, array) and _is_named(kind, name, arrays)):
            parts.notes.append(f"array {name!r} was passed over")
            continue
        pair = pairs.setdefault(_split_in(name) or _split_by_place(name, arrays) or inherited, {})
        if kind in pair:
            kept, other = sorted((pair[kind][0], name), key=lambda known: "coarse" in known)
            if "coarse" not in other:
                raise DataError(
                    f"{where}: {kept!r} and {other!r} are both {kind}; {_listed({'': arrays})}"
                )
            parts.notes.append(f"of {kept!r} and {other!r} the labels are {kept!r}")
            pair[kind] = kept, arrays[kept]
            continue
        pair[kind] = name, array
    for split, pair in pairs.items():
        if set(pair) != {"images", "labels"}:
            missing = ({"images", "labels"} - set(pair)).pop()
            raise DataError(
                f"{where}: there are no {missing} for {next(iter(pair.values()))[0]!r}; "
                f"{_listed({'': arrays})}; call them images and labels, or x and y"
            )
        labels = labels_of(*pair["labels"], where, parts)
        images = images_of(*pair["images"], len(labels), where, parts)
        if len(images) != len(labels):
            raise DataError(
                f"{where}: {pair['images'][0]!r} holds {len(images)} images, "
                f"but {pair['labels'][0]!r} {len(labels)} labels"
            )
        parts.images.setdefault(split, []).append(images)
        parts.labels.setdefault(split, []).append(labels)


def _words(name: str) -> list[str]:
    words = re.split(r"[/_.\-\s\d]+|(?<=[a-z])(?=[A-Z])", name)  # trainX too
    return [word.lower() for word in words if word]


def _split_in(name: str) -> str | None:
    return next((SPLIT_NAMES[word] for word in _words(name) if word in SPLIT_NAMES), None)


def _split_by_place(name: str, arrays: Arrays) -> str | None:
    """Return the split where a pair (train, test) or a triple of pairs has no names."""
    place = name.partition("/")[0].removeprefix("arr_")
    if not place.isdigit():
        return None
    if "/" not in name and not (len(arrays) == 4 and place in "0123"):
        return None
    number = int(place) if "/" in name else int(place) // 2
    outer = len({other.partition("/")[0] for other in arrays}) if "/" in name else 2
    names = ("train", "validation", "test") if outer == 3 else ("train", "test")
    return names[number] if number < len(names) else None


def _kind(name: str, array: NDArray[Any], arrays: Arrays) -> str | None:
    """Return whether an array is images or labels, by its name, else by its form."""
    words = _words(name)
    if "batch" in words or "filenames" in words or array.ndim == 0:  # CIFAR's remarks
        return None
    if (named := _kind_by_name(name, array)) is not None:
        return named
    if array.ndim >= 3:
        return "images"
    if array.ndim == 2 and array.shape[1] > 1 and _side(array.shape[1]) and len(arrays) > 1:
        return "images" if array.dtype == np.uint8 or array.shape[1] >= 64 else "labels"
    return "labels" if array.dtype.kind in "iufbUS" and array.ndim in (1, 2) else None


def _kind_by_name(name: str, array: NDArray[Any]) -> str | None:
    words = _words(name)
    if any(word in words for word in LABELS) and array.ndim <= 2:
        return "labels"
    return "images" if any(word in words for word in IMAGES) and array.ndim >= 2 else None


def _is_named(kind: str, name: str, arrays: Arrays) -> bool:
    """Say whether another array of the same split has the name of such: it is meant, not this."""
    return any(
        _kind_by_name(other, array) == kind and _split_in(other) == _split_in(name)
        for other, array in arrays.items()
        if other != name
    )


def _listed(arrays: Mapping[str, Arrays]) -> str:
    forms = [
        f"{name} {array.dtype} {array.shape}"
        for group in arrays.values()
        for name, array in group.items()
    ]
    return f"found: {few(forms, 8)}" if forms else "found: no array"


def _side(size: int) -> tuple[int, int] | None:
    """Return channels and side of a square image that lies flat, or None."""
    for channels in (1, 3):
        side = math.isqrt(size // channels)
        if channels * side * side == size:
            return channels, side
    return None


def images_of(
    name: str, array: NDArray[Any], count: int, where: str, parts: Parts
) -> NDArray[np.uint8]:
    """Return images as uint8 (N, H, W, C); note what axes and values were taken for.

    Args:
        name: of the array.
        array: see the module for its forms.
        count: of the labels, which tells (H, W, C, N) from (N, H, W, C).
        where: names the set in errors.
        parts: gets the notes.

    Raises:
        DataError: the array has another form, NaN, or another range.
    """
    place = f"{where}: images {name!r}"
    if array.size > MAX_ENTRIES:
        raise DataError(f"{place} hold {array.size} numbers, at most {MAX_ENTRIES} are read")
    if array.ndim == 4 and array.shape[3] == count != array.shape[0]:
        array = np.moveaxis(array, 3, 0)
        parts.notes.append(f"{name!r} is taken as (H, W, C, N)")
    if array.ndim == 2 and (form := _side(array.shape[1])):
        channels, side = form
        array = array.reshape(len(array), channels, side, side)
        parts.notes.append(f"{name!r} lies flat and is taken as {channels}x{side}x{side}")
    elif array.ndim == 3:
        array = array[:, None]
    axis = _channels(array.shape)
    if axis is None:
        raise DataError(
            f"{place} are {array.shape}, not (N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 or "
            "4 channels"
        )
    if axis == 1:
        if array.shape[1] > 1 and not parts.quiet:
            parts.notes.append(f"{name!r} is taken as (N, C, H, W)")
        array = np.moveaxis(array, 1, 3)
    array = _bytes(array, name, place, parts)
    if array.shape[3] == 4:
        parts.notes.append(f"the fourth channel of {name!r} is transparency: laid on black")
        opaque = array[..., 3:].astype(np.uint16)
        array = ((array[..., :3] * opaque + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(array)


def _channels(shape: tuple[int, ...]) -> int | None:
    """Return the axis of 1, 3 or 4 channels: the last of (N, H, W, C) or the first of an image.

    Where both have 1 or 3, it is the one of grey images, else the last; 4 must be the shortest.
    """
    if len(shape) != 4 or 0 in shape[1:]:
        return None
    for channels in (1, 3):
        for axis in (3, 1):
            if shape[axis] == channels:
                return axis
    return next((axis for axis in (3, 1) if shape[axis] == 4 and sorted(shape[1:])[1] > 4), None)


def nearest_bytes(pixels: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return floats in [0, 1] as bytes, and which of them lay between two steps of 1/255."""
    steps = pixels.astype(np.float64) * 255
    nearest = np.rint(steps)
    near = max(ON_GRID, 255 * float(np.spacing(pixels.dtype.type(1)))) if _is_float(pixels) else 0
    return nearest.astype(np.uint8), abs(steps - nearest) > near


def _is_float(array: NDArray[Any]) -> bool:
    return array.dtype.kind == "f"


def _bytes(array: NDArray[Any], name: str, place: str, parts: Parts) -> NDArray[np.uint8]:
    """Return pixels as uint8, by the range that they are in."""
    if array.size == 0:
        return np.zeros(array.shape, np.uint8)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{place} are {array.dtype}, not numbers")
    if _is_float(array) and not np.isfinite(array).all():
        wrong = int((~np.isfinite(array)).reshape(len(array), -1).any(1).sum())
        raise DataError(f"{place}: {wrong} of {len(array)} hold NaN or infinite values")
    low, high = float(array.min()), float(array.max())
    if low < 0:
        raise DataError(
            f"{place} go from {low:g} to {high:g}: they look normalised; store pixels from 0 to "
            "255 or 0 to 1, and leave normalisation to the model (--normalise)"
        )
    whole = not _is_float(array)
    if high > 255 and not (whole and high <= 65535):
        raise DataError(f"{place} go up to {high:g}, not 255, 1 or (whole numbers) 65535")
    if high > 255:
        parts.notes.append(f"{name!r} has 16 bits and was scaled to 8")
        return ((array.astype(np.int64) + 128) // 257).astype(np.uint8)
    if not whole and 1 < high < OVER:
        if high > 1 + ROUNDING:
            raise DataError(
                f"{place} go up to {high:g}, a little over 1: store floats from 0 to 1, as "
                "x.clip(0, 1) are, or pixels from 0 to 255"
            )
        array, high = array.clip(0, 1), 1.0
    if high <= 1 and (array.dtype.kind in "bf" or high == 1):
        form = "0 and 1" if whole else "floats in [0, 1]"
        pixels, between = nearest_bytes(array)
        rounded = int(between.reshape(len(array), -1).any(1).sum())
        more = f", {rounded} of them rounded to 1/255" if rounded else ""
        if rounded or whole or not parts.quiet:
            parts.notes.append(f"{name!r} holds {form}: taken as pixels times 255{more}")
        return pixels
    if not whole:
        parts.notes.append(f"{name!r} holds floats up to {high:g}: taken as pixels from 0 to 255")
        array = np.rint(array)
    return array.astype(np.uint8)


def labels_of(name: str, array: NDArray[Any], where: str, parts: Parts) -> NDArray[Any]:
    """Return labels (N,) as whole numbers or text.

    Raises:
        DataError: they are no numbers, no text and no one-hot rows, one for each image.
    """
    place = f"{where}: labels {name!r}"
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.dtype.kind in "biuf":
        if not (((array == 0) | (array == 1)).all() and (array.sum(1) == 1).all()):
            raise DataError(
                f"{place} are {array.dtype} {array.shape}, neither one number for each image nor "
                "one-hot rows"
            )
        parts.notes.append(f"{name!r} is one-hot: its {array.shape[1]} columns are the classes")
        if not parts.names:
            parts.names = tuple(str(number) for number in range(array.shape[1]))
        return np.asarray(array.argmax(1))
    if array.ndim != 1 or array.dtype.kind not in "biufUS":
        raise DataError(f"{place} are {array.dtype} {array.shape}, not one for each image")
    if _is_float(array) and (not np.isfinite(array).all() or (array != np.rint(array)).any()):
        raise DataError(f"{place} are no whole numbers: {few(np.unique(array)[:4].tolist())}")
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8", "replace")
    return array.astype(np.int64) if array.dtype.kind in "bf" else array
