"""Files of arrays, .npz, .npy and pickled: names and forms tell which is what; guesses are noted.

    images, x, data, ...            uint8, 16 bits, or floats in [0, 1] or [0, 255]; (N, H, W),
                                    (N, H, W, C), (N, C, H, W), (H, W, C, N) or flat as CIFAR's
    labels, y, target, ...          numbers from 0, names, or one-hot rows
    train, test, val, ... in a name the split;  classes, label_names: what the classes are called

In a folder every file is read, and a file's name may say the split or the array. What is too big
for memory is read in batches where it is stored row by row: in .npy, and in .npz without packing.
"""

import math
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.arrays import Pixels
from purpleteam.core.errors import DataError, Refused
from purpleteam.data.images import SPLIT_NAMES, Dataset, ImageSet, class_index, few, splits_from
from purpleteam.data.streamed import Images, Streamed, chunks, fits

Array = NDArray[Any] | Streamed[Any]
Arrays = Mapping[str, Array]
ArraysReader = Callable[[Path], Mapping[str, NDArray[Any]]]  # a single one is called `array`
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

    images: dict[str, list[Images]] = field(default_factory=dict)
    labels: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    quiet: bool = False  # in memory floats in [0, 1] and channels first are usual: no note


def plain_arrays(path: Path) -> Mapping[str, NDArray[Any]]:
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


def _read(path: Path, read: ArraysReader) -> Arrays:
    """Return the arrays of a file; of one that does not fit in memory, as they lie in it."""
    if fits(path.stat().st_size, ()):
        return read(path)
    found: dict[str, Array] = {}
    with path.open("rb") as file:
        head = file.read(6)
        if head == b"\x93NUMPY" and (stored := _stored(path, file, 0)) is not None:
            return {"array": stored}
        if not head.startswith(b"PK"):
            return read(path)
        try:
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    kept: Array | None = None
                    if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:
                        file.seek(member.header_offset + 26)  # of the lengths of name and extra
                        lengths = int.from_bytes(file.read(2), "little")
                        lengths += int.from_bytes(file.read(2), "little")
                        kept = _stored(path, file, member.header_offset + 30 + lengths)
                    if kept is None and member.file_size > MAX_ENTRIES:
                        told = f"{member.filename} of {member.file_size:,} bytes"
                        remedy = "write it by np.savez row by row, not compressed"
                        raise DataError(f"{path}: {told} does not fit in memory: {remedy}")
                    if kept is None:
                        with archive.open(member) as inner:
                            kept = np.lib.format.read_array(inner, allow_pickle=False)
                    found[member.filename.removesuffix(".npy")] = kept
        except (zipfile.BadZipFile, ValueError, EOFError, RuntimeError):
            return read(path)  # which says what is wrong
    return found


def _stored(path: Path, file: IO[bytes], start: int) -> Streamed[Any] | None:
    """Return an array as it lies in a file; None where it is small, or not row by row."""
    heads = {(1, 0): np.lib.format.read_array_header_1_0}
    heads[2, 0] = np.lib.format.read_array_header_2_0
    file.seek(start)
    try:
        shape, by_column, kind = heads[np.lib.format.read_magic(file)](file)
    except (KeyError, ValueError):
        return None
    if by_column or kind.hasobject or not shape or fits(1, shape, kind.itemsize):
        return None
    return Streamed.in_file(path, file.tell(), shape, kind)


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
    arrays: dict[str, dict[str, Array]] = {}
    for file in [path] if is_file else array_files(path):
        alone = file.suffix.lower() == ".npy" and not is_file
        for name, array in _read(file, read).items():
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
        held = [one for one in listed if not isinstance(one, Streamed)]
        whole = np.concatenate(held) if len(held) == len(listed) else Streamed.joined(listed)
        piles[name] = ImageSet(whole, labels)
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
            parts.names = tuple(np.asarray(array).astype(str).tolist())
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
        labels = labels_of(pair["labels"], np.asarray(arrays[pair["labels"]]), where, parts)
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


def _kind_by_name(name: str, array: Array) -> str | None:
    words = set(_words(name))
    if WORDS["labels"] & words and array.ndim <= 2:
        return "labels"
    return "images" if WORDS["images"] & words and array.ndim >= 2 else None


def _kind_by_form(array: Array, beside: int) -> str | None:
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


def images_of(name: str, array: Array, count: int, where: str, parts: Parts) -> Images:
    """Return images as uint8 (N, H, W, C); `count` labels tell (H, W, C, N) from (N, H, W, C)."""
    place = f"{where}: images {name!r}"
    on_disk = isinstance(array, Streamed | np.memmap) and not fits(1, array.shape)
    if array.size > MAX_ENTRIES and not on_disk:
        raise DataError(f"{place} hold {array.size} numbers, at most {MAX_ENTRIES} are read")
    if array.ndim == 4 and array.shape[3] == count != array.shape[0]:
        if on_disk:
            raise DataError(f"{place} are (H, W, C, N), too big to be turned: store (N, H, W, C)")
        array = np.moveaxis(np.asarray(array), 3, 0)
        parts.notes.append(f"{name!r} is taken as (H, W, C, N)")
    rows = Streamed.of(array)
    if rows.ndim == 2 and (form := _side(rows.shape[1])):
        channels, side = form
        square = (channels, side, side)
        rows = rows.mapped(lambda part: part.reshape(len(part), *square), square, rows.dtype)
        parts.notes.append(f"{name!r} lies flat and is taken as {channels}x{side}x{side}")
    elif rows.ndim == 3:
        rows = rows.mapped(lambda part: part[:, None], (1, *rows.shape[1:]), rows.dtype)
    shape = rows.shape
    # The axis of channels: grey before colour, the last before the first; 4 must be the shortest.
    wanted = [(channels, axis) for channels in (1, 3, 4) for axis in (3, 1) if rows.ndim == 4]
    axis = next((axis for channels, axis in wanted if shape[axis] == channels), 0)
    if not axis or 0 in shape[1:] or (shape[axis] == 4 and sorted(shape[1:])[1] <= 4):
        forms = "(N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 channels"
        raise DataError(f"{place} are {shape}, not {forms}")
    if axis == 1:
        if shape[1] > 1 and not parts.quiet:
            parts.notes.append(f"{name!r} is taken as (N, C, H, W)")
        last = (*shape[2:], shape[1])
        rows = rows.mapped(lambda part: np.moveaxis(part, 1, 3), last, rows.dtype)
    to_bytes = _bytes(rows, name, place, parts) if rows.size else _as_bytes
    pixels: Streamed[np.uint8] = rows.mapped(to_bytes, rows.shape[1:], np.uint8)
    if pixels.shape[3] == 4:
        parts.notes.append(f"the fourth channel of {name!r} is transparency: laid on black")
        pixels = pixels.mapped(_on_black, (*pixels.shape[1:3], 3), np.uint8)
    return pixels if on_disk else np.ascontiguousarray(pixels)


def _on_black(pixels: Pixels) -> Pixels:
    opaque = pixels[..., 3:].astype(np.uint16)
    return ((pixels[..., :3] * opaque + 127) // 255).astype(np.uint8)


def nearest_bytes(pixels: NDArray[Any]) -> tuple[NDArray[np.uint8], int]:
    """Return images (N, ...) of floats in [0, 1] as bytes, and how many had to be rounded."""
    steps = pixels.astype(np.float64) * 255
    nearest = np.rint(steps)
    is_float = pixels.dtype.kind == "f"
    near = max(ON_GRID, 255 * float(np.spacing(pixels.dtype.type(1)))) if is_float else 0
    between = (abs(steps - nearest) > near).reshape(len(pixels), -1).any(1)
    return nearest.astype(np.uint8), int(between.sum())


def _bytes(
    rows: Streamed[Any], name: str, place: str, parts: Parts
) -> Callable[[NDArray[Any]], Pixels]:
    """Return what makes bytes of such numbers, by their range; it is noted, or refused."""
    if rows.dtype.kind not in "biuf":
        raise DataError(f"{place} are {rows.dtype}, not numbers")
    is_whole = rows.dtype.kind != "f"
    low, high, wrong = math.inf, -math.inf, 0
    for _, part in chunks(rows):
        if not is_whole:
            wrong += int((~np.isfinite(part)).reshape(len(part), -1).any(1).sum())
        low, high = min(low, float(part.min())), max(high, float(part.max()))
        if rows.dtype == np.uint8 and high > 1:  # no other number says more
            return _as_bytes
    if wrong:
        raise DataError(f"{place}: {wrong} of {len(rows)} hold NaN or infinite values")
    if low < 0:
        remedy = "store pixels from 0 to 255 or 0 to 1, the model normalises (--normalise)"
        raise DataError(f"{place} go from {low:g} to {high:g}: they look normalised; {remedy}")
    if high > 255:
        if not is_whole or high > 65535:
            raise DataError(f"{place} go up to {high:g}, not 255, 1 or (whole numbers) 65535")
        parts.notes.append(f"{name!r} has 16 bits and was scaled to 8")
        return lambda part: ((part.astype(np.int64) + 128) // 257).astype(np.uint8)
    over = not is_whole and 1 < high < OVER
    if over and high > 1 + ROUNDING:
        remedy = "store floats from 0 to 1, as x.clip(0, 1) are, or pixels from 0 to 255"
        raise DataError(f"{place} go up to {high:g}, a little over 1: {remedy}")
    if over or high == 1 or (high < 1 and rows.dtype.kind in "bf"):
        form = "0 and 1" if is_whole else "floats in [0, 1]"
        ranged = (lambda part: part.clip(0, 1)) if over else np.asarray
        rounded = sum(nearest_bytes(ranged(part))[1] for _, part in chunks(rows))
        if rounded or is_whole or not parts.quiet:
            more = f", {rounded} of them rounded to 1/255" if rounded else ""
            parts.notes.append(f"{name!r} holds {form}: taken as pixels times 255{more}")
        return lambda part: nearest_bytes(ranged(part))[0]
    if not is_whole:
        parts.notes.append(f"{name!r} holds floats up to {high:g}: taken as pixels from 0 to 255")
        return lambda part: np.rint(part).astype(np.uint8)
    return _as_bytes


def _as_bytes(part: NDArray[Any]) -> Pixels:
    return part.astype(np.uint8)


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
