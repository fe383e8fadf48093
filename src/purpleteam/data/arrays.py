"""Files of arrays, .npz, .npy and pickled: names and forms tell which is what; guesses are noted.

    images, x, data, ...            uint8, 16 bits, or floats in [0, 1] or [0, 255]; (N, H, W),
                                    (N, H, W, C), (N, C, H, W), (H, W, C, N) or flat as CIFAR's
    labels, y, target, ...          numbers from 0, names, or one-hot rows
    train, test, val, ... in a name the split;  classes, label_names: what the classes are called

In a folder every file is read, and a file's name may say the split or the array.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import DataError, Refused
from purpleteam.data.images import SPLIT_NAMES, Dataset, ImageSet, class_index, few, splits_from

Arrays = Mapping[str, NDArray[Any]]
ArraysReader = Callable[[Path], Arrays]  # a single one is called `array`
ENDS = (".npz", ".npy", ".pkl", ".pickle")
CIFAR = re.compile(r"(data_batch_\d+|test_batch|batches\.meta|train|test|meta)$")  # without ending
WRITE_IT = "write it as np.savez('set.npz', x=images, y=labels)"
WORDS = {
    "images": {"images", "image", "imgs", "img", "x", "data", "pixels", "inputs"},
    "labels": {"labels", "label", "y", "targets", "target"},
}
NAMES = ("classes", "class_names", "label_names", "fine_label_names", "target_names")
MAX_ENTRIES = 1 << 30
ROUNDING = 1e-3  # how far above 1 a float may be and still be meant as white
ON_GRID = 1e-3  # how far from a whole number of 255ths a float pixel may be and still count as one
OVER = 2  # floats up to here are no pixels from 0 to 255, all of which would be black


@dataclass
class Parts:
    """What the arrays of a set turned out to be."""

    images: dict[str, list[NDArray[np.uint8]]] = field(default_factory=dict)
    labels: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    quiet: bool = False  # in memory floats in [0, 1] and channels first are usual: no note


def plain_arrays(path: Path) -> Arrays:
    """Return the arrays of an .npz or .npy file; objects are refused, nothing is unpickled."""
    try:
        with path.open("rb") as file:  # NumPy leaves open what it opened and cannot read
            head = file.read(6)
            if head.startswith(b"PK") or head == b"\x93NUMPY":
                file.seek(0)
                content = np.load(file, allow_pickle=False)
                if isinstance(content, np.ndarray):
                    return {"array": content}
                with content:
                    return {name: content[name] for name in content.files}
        if head.startswith(b"\x80"):
            reader = "read_arrays=purpleteam.scan.formats.read_arrays reads it without"
            why = f"it is pickled, and unpickling runs what it says: {reader}"
        elif head.startswith(b"\x1f\x8b"):
            why = "it is packed by gzip: unpack it with gunzip first"
        else:
            why = f"it is {'no .npz and no .npy file' if head else 'empty'}: {WRITE_IT}"
    except OSError as error:
        why = f"it cannot be read: {error.strerror or error}"
    except Exception as error:  # NumPy and zipfile raise much on a broken or hostile file
        why = f"it is broken or cut off ({type(error).__name__}): get it again, or {WRITE_IT}"
        if "Object arrays" in str(error):  # which would be unpickled
            remedy = "give numbers or text, such as np.stack(x).astype('uint8')"
            why = f"it holds Python objects: {remedy}"
    raise Refused(f"data file {str(path)!r} is refused: {why}")


def is_array_file(path: Path) -> bool:
    """Say whether a path is, by its name, a file of arrays."""
    return path.suffix.lower() in ENDS and path.is_file()


def array_files(folder: Path) -> list[Path]:
    """Return the files of arrays that a folder holds, where these are what it holds."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    named = [path for path in files if path.suffix.lower() in ENDS]
    return named or [path for path in files if CIFAR.fullmatch(path.name)]


def load_arrays(path: Path, read: ArraysReader) -> Dataset:
    """Return the dataset in a file of arrays, or in a folder of such files."""
    is_file = path.is_file()
    arrays: dict[str, dict[str, NDArray[Any]]] = {}
    for file in [path] if is_file else array_files(path):
        alone = file.suffix.lower() == ".npy" and not is_file
        for name, array in read(file).items():
            key = file.stem if alone else name
            arrays.setdefault("" if alone else file.stem, {})[key] = array
    parts = Parts()
    for stem, group in arrays.items():
        split, place = ("", path) if is_file else (_split_in(stem) or "", path / stem)
        _sort(group, split, str(place), parts)
    if not parts.images:
        every = {name: array for group in arrays.values() for name, array in group.items()}
        raise DataError(f"{path}: holds no images; {_listed(every)}")
    if len({array.shape[1:] for listed in parts.images.values() for array in listed}) > 1:
        shapes = {name: listed[0].shape[1:] for name, listed in parts.images.items()}
        raise DataError(f"{path}: images are of several sizes (H, W, C): {shapes}")
    texts = {name: np.concatenate(listed).astype(str) for name, listed in parts.labels.items()}
    every_label = np.concatenate(list(texts.values())).tolist()
    classes, index = class_index(every_label, str(path), parts.names)
    piles = {}
    for name, listed in parts.images.items():
        labels = np.array([index[label] for label in texts[name].tolist()], np.int64)
        piles[name] = ImageSet(np.concatenate(listed), labels)
    return Dataset(
        name=path.resolve().stem,
        classes=classes,
        origin={"file": str(path), "notes": tuple(dict.fromkeys(parts.notes))},
        **splits_from(piles, str(path)),
    )


def _sort(arrays: Arrays, inherited: str, where: str, parts: Parts) -> None:
    """Put each array of one file to where it belongs: images, labels or names, by split."""
    pairs: dict[str, dict[str, str]] = {}
    for name, array in arrays.items():
        is_text = array.ndim == 1 and array.dtype.kind in "US"
        if is_text and name.lower().rpartition("/")[2] in NAMES:
            parts.names = tuple(array.astype(str).tolist())
            continue
        split, kind = _split_in(name), _kind_by_name(name, array)
        remark = array.ndim == 0 or bool({"batch", "filenames"} & set(_words(name)))  # of CIFAR
        if kind is None:  # what has the name goes before what has the form
            kind = _kind_by_form(array, len(arrays))
            rivals = [row for row in arrays.items() if _split_in(row[0]) == split]
            remark = remark or any(_kind_by_name(*row) == kind for row in rivals)
        if kind is None or remark:
            parts.notes.append(f"array {name!r} was passed over")
            continue
        pair = pairs.setdefault(split or _split_by_place(name, arrays) or inherited, {})
        if kind in pair:
            kept, other = sorted((pair[kind], name), key=lambda known: "coarse" in known)
            if "coarse" not in other:
                both = f"{kept!r} and {other!r} are both {kind}"
                raise DataError(f"{where}: {both}; {_listed(arrays)}")
            parts.notes.append(f"of {kept!r} and {other!r} the labels are {kept!r}")
            pair[kind] = kept
        pair.setdefault(kind, name)
    for split, pair in pairs.items():
        if missing := WORDS.keys() - pair:
            lack = f"there are no {missing.pop()} for {next(iter(pair.values()))!r}"
            remedy = "call them images and labels, or x and y"
            raise DataError(f"{where}: {lack}; {_listed(arrays)}; {remedy}")
        labels = labels_of(pair["labels"], arrays[pair["labels"]], where, parts)
        images = images_of(pair["images"], arrays[pair["images"]], len(labels), where, parts)
        if len(images) != len(labels):
            counts = f"{len(images)} images, but {pair['labels']!r} {len(labels)} labels"
            raise DataError(f"{where}: {pair['images']!r} holds {counts}")
        parts.images.setdefault(split, []).append(images)
        parts.labels.setdefault(split, []).append(labels)


def _words(name: str) -> list[str]:
    words = re.split(r"[/_.\-\s\d]+|(?<=[a-z])(?=[A-Z])", name)  # trainX too
    return [word.lower() for word in words]


def _split_in(name: str) -> str | None:
    return next((SPLIT_NAMES[word] for word in _words(name) if word in SPLIT_NAMES), None)


def _split_by_place(name: str, arrays: Arrays) -> str | None:
    """Return the split where a pair (train, test) or a triple of pairs has no names."""
    place, inner, _ = name.removeprefix("arr_").partition("/")
    if not place.isdigit() or not (inner or (len(arrays) == 4 and place in "0123")):
        return None
    outer = len({other.partition("/")[0] for other in arrays}) if inner else 2
    names = ("train", "validation", "test") if outer == 3 else ("train", "test")
    number = int(place) if inner else int(place) // 2
    return names[number] if number < len(names) else None


def _kind_by_name(name: str, array: NDArray[Any]) -> str | None:
    words = set(_words(name))
    if WORDS["labels"] & words and array.ndim <= 2:
        return "labels"
    return "images" if WORDS["images"] & words and array.ndim >= 2 else None


def _kind_by_form(array: NDArray[Any], beside: int) -> str | None:
    if array.ndim >= 3:
        return "images"
    if array.ndim == 2 and array.shape[1] > 1 and _side(array.shape[1]) and beside > 1:
        return "images" if array.dtype == np.uint8 or array.shape[1] >= 64 else "labels"
    return "labels" if array.dtype.kind in "iufbUS" and array.ndim in (1, 2) else None


def _listed(arrays: Arrays) -> str:
    forms = [f"{name} {array.dtype} {array.shape}" for name, array in arrays.items()]
    return f"found: {few(forms, 8) or 'no array'}"


def _side(size: int) -> tuple[int, int] | None:
    """Return channels and side of a square image that lies flat, or None."""
    sides = ((channels, math.isqrt(size // channels)) for channels in (1, 3))
    return next((form for form in sides if form[0] * form[1] * form[1] == size), None)


def images_of(
    name: str, array: NDArray[Any], count: int, where: str, parts: Parts
) -> NDArray[np.uint8]:
    """Return images as uint8 (N, H, W, C); `count` labels tell (H, W, C, N) from (N, H, W, C)."""
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
    shape = array.shape
    # The axis of channels: grey before colour, the last before the first; 4 must be the shortest.
    wanted = [(channels, axis) for channels in (1, 3, 4) for axis in (3, 1) if array.ndim == 4]
    axis = next((axis for channels, axis in wanted if shape[axis] == channels), 0)
    if not axis or 0 in shape[1:] or (shape[axis] == 4 and sorted(shape[1:])[1] <= 4):
        forms = "(N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 channels"
        raise DataError(f"{place} are {shape}, not {forms}")
    if axis == 1:
        if shape[1] > 1 and not parts.quiet:
            parts.notes.append(f"{name!r} is taken as (N, C, H, W)")
        array = np.moveaxis(array, 1, 3)
    array = _bytes(array, name, place, parts) if array.size else np.zeros(array.shape, np.uint8)
    if array.shape[3] == 4:
        parts.notes.append(f"the fourth channel of {name!r} is transparency: laid on black")
        opaque = array[..., 3:].astype(np.uint16)
        array = ((array[..., :3] * opaque + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(array)


def nearest_bytes(pixels: NDArray[Any]) -> tuple[NDArray[np.uint8], int]:
    """Return images (N, ...) of floats in [0, 1] as bytes, and how many had to be rounded."""
    steps = pixels.astype(np.float64) * 255
    nearest = np.rint(steps)
    is_float = pixels.dtype.kind == "f"
    near = max(ON_GRID, 255 * float(np.spacing(pixels.dtype.type(1)))) if is_float else 0
    between = (abs(steps - nearest) > near).reshape(len(pixels), -1).any(1)
    return nearest.astype(np.uint8), int(between.sum())


def _bytes(array: NDArray[Any], name: str, place: str, parts: Parts) -> NDArray[np.uint8]:
    if array.dtype.kind not in "biuf":
        raise DataError(f"{place} are {array.dtype}, not numbers")
    is_whole = array.dtype.kind != "f"
    if not is_whole and not np.isfinite(array).all():
        wrong = int((~np.isfinite(array)).reshape(len(array), -1).any(1).sum())
        raise DataError(f"{place}: {wrong} of {len(array)} hold NaN or infinite values")
    low, high = float(array.min()), float(array.max())
    if low < 0:
        remedy = "store pixels from 0 to 255 or 0 to 1, the model normalises (--normalise)"
        raise DataError(f"{place} go from {low:g} to {high:g}: they look normalised; {remedy}")
    if high > 255:
        if not is_whole or high > 65535:
            raise DataError(f"{place} go up to {high:g}, not 255, 1 or (whole numbers) 65535")
        parts.notes.append(f"{name!r} has 16 bits and was scaled to 8")
        return ((array.astype(np.int64) + 128) // 257).astype(np.uint8)
    if not is_whole and 1 < high < OVER:
        if high > 1 + ROUNDING:
            remedy = "store floats from 0 to 1, as x.clip(0, 1) are, or pixels from 0 to 255"
            raise DataError(f"{place} go up to {high:g}, a little over 1: {remedy}")
        array, high = array.clip(0, 1), 1.0
    if high == 1 or (high < 1 and array.dtype.kind in "bf"):
        form = "0 and 1" if is_whole else "floats in [0, 1]"
        pixels, rounded = nearest_bytes(array)
        if rounded or is_whole or not parts.quiet:
            more = f", {rounded} of them rounded to 1/255" if rounded else ""
            parts.notes.append(f"{name!r} holds {form}: taken as pixels times 255{more}")
        return pixels
    if not is_whole:
        parts.notes.append(f"{name!r} holds floats up to {high:g}: taken as pixels from 0 to 255")
    return (array if is_whole else np.rint(array)).astype(np.uint8)


def labels_of(name: str, array: NDArray[Any], where: str, parts: Parts) -> NDArray[Any]:
    """Return labels (N,) as whole numbers or text."""
    place = f"{where}: labels {name!r} are"
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.dtype.kind in "biuf":
        if not (((array == 0) | (array == 1)).all() and (array.sum(1) == 1).all()):
            wanted = "neither one number for each image nor one-hot rows"
            raise DataError(f"{place} {array.dtype} {array.shape}, {wanted}")
        parts.notes.append(f"{name!r} is one-hot: its {array.shape[1]} columns are the classes")
        parts.names = parts.names or tuple(map(str, range(array.shape[1])))
        return np.asarray(array.argmax(1))
    if array.ndim != 1 or array.dtype.kind not in "biufUS":
        raise DataError(f"{place} {array.dtype} {array.shape}, not one for each image")
    if array.dtype.kind == "f" and not (np.isfinite(array) & (array == np.rint(array))).all():
        raise DataError(f"{place} no whole numbers: {few(np.unique(array)[:4].tolist())}")
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8", "replace")
    return array.astype(np.int64) if array.dtype.kind in "bf" else array
