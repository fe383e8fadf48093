"""Arrays of images that do not fit in memory: rows are read when they are asked for, in batches.

`ImageSet.images` is a NumPy array up to `IN_MEMORY` bytes of pixels, and above that a `Streamed`.
Both give `images[start:end]`, `images[rows]`, `.shape` and `len`; what goes over all images does so
in batches, and never asks which of the two it has.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import DataError

IN_MEMORY = 256 << 20  # bytes of pixels up to which a set is held whole
CHUNK = 16 << 20  # bytes that are read at a time where all rows are gone over
ELSEWHERE = "set TMPDIR to a folder on a disk"

S = TypeVar("S", bound=np.generic)
T = TypeVar("T", bound=np.generic)
Index = int | np.integer[Any] | slice | Sequence[int] | NDArray[Any]
Read = Callable[[NDArray[np.int64]], NDArray[S]]  # rows (n,) of the array to what they hold


def fits(count: int, row: Sequence[int], itemsize: int = 1) -> bool:
    """Say whether so many rows of a shape are held in memory."""
    return count * math.prod(row) * itemsize <= IN_MEMORY


class Streamed(Generic[S]):
    """An array (N, ...) of which only the rows that are asked for are in memory.

    Indexing with a number, a slice or an array of rows returns a NumPy array of these rows; `take`
    returns another view. `np.asarray` reads all of it, as does whatever wants a whole array.
    """

    def __init__(
        self, read: Read[S], shape: Sequence[int], dtype: Any, rows: NDArray[np.int64] | None = None
    ) -> None:
        """Show the rows that `read` returns, of an array of this shape: those named, or all."""
        self._read = read
        self._rows = np.arange(shape[0]) if rows is None else rows
        self.shape = (len(self._rows), *shape[1:])
        self.dtype: np.dtype[S] = np.dtype(dtype)

    @classmethod
    def of(cls, array: NDArray[S] | Streamed[S]) -> Streamed[S]:
        """Return an array as one that is read in parts; a file mapped for reading by its path."""
        if isinstance(array, Streamed):
            return array
        mapped: Any = array if isinstance(array, np.memmap) else None
        whole = mapped is not None and isinstance(mapped.base, mmap.mmap) and mapped.filename
        if whole and mapped.mode == "r" and mapped.flags.c_contiguous:
            # pages of a map stay in memory once they are read; what a file is read into does not
            return cls.in_file(Path(mapped.filename), mapped.offset, mapped.shape, mapped.dtype)
        return cls(lambda rows: np.asarray(array[rows]), array.shape, array.dtype)

    @classmethod
    def in_file(cls, path: Path, offset: int, shape: Sequence[int], dtype: Any) -> Streamed[S]:
        """Return the array that begins at `offset` of a file, one row after the other."""
        kind, found = np.dtype(dtype), path.stat()
        size = math.prod(shape[1:]) * kind.itemsize
        if offset + shape[0] * size > found.st_size:
            raise DataError(f"{path}: is cut off: {found.st_size} bytes for {shape} of {kind}")

        def read(rows: NDArray[np.int64]) -> NDArray[S]:
            out: NDArray[S] = np.empty((len(rows), *shape[1:]), kind)
            try:
                with path.open("rb", buffering=0) as file:
                    now = path.stat()
                    if (now.st_size, now.st_mtime_ns) != (found.st_size, found.st_mtime_ns):
                        raise _is_another(path, "it holds something else now")
                    read_rows(file, offset, rows, out)
            except OSError as error:
                raise _is_another(path, f"cannot be read: {error.strerror or error}") from None
            return out

        return cls(read, shape, kind)

    @classmethod
    def joined(cls, parts: Sequence[NDArray[S] | Streamed[S]]) -> Streamed[S]:
        """Return arrays of one kind of rows, one after the other."""
        ends = np.cumsum([len(part) for part in parts])

        def read(rows: NDArray[np.int64]) -> NDArray[S]:
            out: NDArray[S] = np.empty((len(rows), *parts[0].shape[1:]), parts[0].dtype)
            which = np.searchsorted(ends, rows, side="right")
            for number in np.unique(which).tolist():
                own = which == number
                out[own] = parts[number][rows[own] - (ends[number] - len(parts[number]))]
            return out

        return cls(read, (int(ends[-1]), *parts[0].shape[1:]), parts[0].dtype)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Index) -> NDArray[S]:
        rows = self._rows[index]
        return self._read(rows) if rows.ndim else self._read(rows[None])[0]

    def __iter__(self) -> Iterator[NDArray[S]]:
        for _, part in chunks(self):
            yield from part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole: NDArray[Any] = np.empty(self.shape, dtype or self.dtype)
        for place, part in chunks(self):
            whole[place] = part
        return whole

    def take(self, index: Index) -> Streamed[S]:
        """Return these rows, in their order; nothing is read."""
        return Streamed(self._read, (0, *self.shape[1:]), self.dtype, self._rows[index])

    def mapped(
        self, function: Callable[[NDArray[S]], NDArray[T]], row: Sequence[int], dtype: Any
    ) -> Streamed[T]:
        """Return what a function makes of rows (n, ...), each for itself, as it is read."""
        return Streamed(lambda rows: function(self[rows]), (len(self), *row), dtype)

    def replaced(self, rows: NDArray[np.int64], values: NDArray[S] | Streamed[S]) -> Streamed[S]:
        """Return the array with other values in these rows, each of which is named once."""
        place = np.full(len(self), -1)
        place[rows] = np.arange(len(rows))

        def read(wanted: NDArray[np.int64]) -> NDArray[S]:
            new = place[wanted] >= 0
            out: NDArray[S] = np.empty((len(wanted), *self.shape[1:]), self.dtype)
            out[new] = values[place[wanted[new]]]
            if not new.all():
                out[~new] = self[wanted[~new]]
            return out

        return Streamed(read, self.shape, self.dtype)


Images = NDArray[np.uint8] | Streamed[np.uint8]


def read_rows(file: Any, offset: int, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
    """Read rows of a file into an array of as many; those that follow one another at once."""
    size = out[:1].nbytes
    first = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
    for start, end in zip(first, [*first[1:], len(rows)], strict=True):
        file.seek(offset + int(rows[start]) * size)
        into = out[start:end].data.cast("B")
        while into:
            if not (count := file.readinto(into)):
                raise OSError("it ends too early")
            into = into[count:]


def chunks(array: NDArray[S] | Streamed[S]) -> Iterator[tuple[slice, NDArray[S]]]:
    """Yield all rows in order, about `CHUNK` bytes at a time, and where they stand."""
    step = max(1, CHUNK // max(1, math.prod(array.shape[1:]) * array.dtype.itemsize))
    for start in range(0, len(array), step):
        place = slice(start, start + step)
        yield place, array[place]


def changed(images: Images, rows: NDArray[np.int64], values: NDArray[np.uint8]) -> Images:
    """Return images with others in these rows, each of which is named once."""
    if isinstance(images, Streamed):
        return images.replaced(rows, values)
    images = images.copy()
    images[rows] = values
    return images


def each(images: Images, function: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> Images:
    """Return what a function makes of images (n, H, W, C), each for itself, in their form."""
    if isinstance(images, Streamed):
        return images.mapped(function, images.shape[1:], np.uint8)
    return function(images)


class Gathered:
    """Images as they are read one by one: held while they fit in memory, then only digests."""

    def __init__(self) -> None:
        self._held: list[NDArray[np.uint8]] | None = []
        self._digests: list[bytes] = []
        self._size = 0

    def add(self, pixels: NDArray[np.uint8]) -> None:
        self._digests.append(_digest(pixels))
        self._size += pixels.size
        if not fits(self._size, ()):
            self._held = None
        if self._held is not None:
            self._held.append(pixels)

    def images(
        self,
        places: range,
        again: Callable[[int], NDArray[np.uint8]],
        name: Callable[[int], str],
        stacked: Callable[[Sequence[NDArray[np.uint8]]], NDArray[np.uint8]] = np.stack,
    ) -> NDArray[np.uint8] | Streamed[np.uint8]:
        """Return these images (N, H, W, C), stacked; what is not held is read `again` when needed.

        What is read again must be what it was: a DataError calls the image by its `name` if not.
        """
        if self._held is not None or not places:
            return stacked((self._held or [])[places.start : places.stop])

        def read(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
            found = []
            for place in (rows + places.start).tolist():
                try:
                    found.append(again(place))
                except DataError as error:
                    why = str(error).removeprefix(f"{name(place)}: ")
                    raise _is_another(name(place), why) from None
                if _digest(found[-1]) != self._digests[place]:
                    raise _is_another(name(place), "it holds something else now")
            return stacked(found)

        return Streamed(read, (len(places), *read(np.arange(1)).shape[1:]), np.uint8)


def _is_another(name: str | Path, why: str) -> DataError:
    remedy = "put it back as it was, or start again with the images as they are"
    return DataError(f"{name}: was changed while it was in use ({why}): {remedy}")


def _digest(pixels: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(pixels).reshape(-1).data, digest_size=16).digest()


def portions(array: NDArray[Any] | Streamed[Any]) -> list[slice]:
    """Return the whole where it fits in memory, else parts with room for what is made of them."""
    if fits(1, array.shape):
        return [slice(0, len(array))]
    step = max(1, CHUNK // math.prod(array.shape[1:]))
    return [slice(start, start + step) for start in range(0, len(array), step)]


class Spool:
    """Rows (N, ...) that are written once and read again: in memory, or in a file without a name.

    The file lies in the folder for temporary files (TMPDIR) and is gone when nothing uses it.
    """

    def __init__(self, shape: Sequence[int], dtype: Any) -> None:
        """Make room for an array, in memory or on a disk; DataError where it is too big."""
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self._row = math.prod(shape[1:]) * self.dtype.itemsize
        self._array: NDArray[Any] | None = None
        if fits(1, shape):
            self._array = np.zeros(self.shape, self.dtype)
            return
        check_room(Path(tempfile.gettempdir()), shape[0] * self._row, ELSEWHERE)
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  open as long as it is used
        weakref.finalize(self, self._file.close)

    def write(self, rows: NDArray[np.int64], values: NDArray[Any]) -> None:
        if self._array is not None:
            self._array[rows] = values
            return
        try:
            for row, value in zip(rows.tolist(), values, strict=True):
                self._file.seek(row * self._row)
                rest = np.ascontiguousarray(value, self.dtype).data.cast("B")
                while rest:
                    rest = rest[self._file.write(rest) :]
        except OSError as error:
            check_room(Path(tempfile.gettempdir()), len(rows) * self._row, ELSEWHERE)
            raise DataError(f"{tempfile.gettempdir()}: cannot be written: {error}") from None

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        if self._array is not None:
            return self._array[rows]
        out: NDArray[Any] = np.empty((len(rows), *self.shape[1:]), self.dtype)
        read_rows(self._file, 0, rows, out)
        return out


def check_room(folder: Path, needed: int, remedy: str) -> None:
    """Refuse what a disk has no room for, before anything is written."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        room = f"{needed:,} bytes are needed, {free:,} are free"
        raise DataError(f"{folder}: no room for images: {room}: {remedy} with more, or use --limit")


def save_arrays(path: Path, arrays: dict[str, NDArray[Any] | Streamed[Any]]) -> None:
    """Write arrays as .npz, as `np.savez` does to the byte, in parts where one does not fit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    needed = sum(array.nbytes for array in arrays.values() if isinstance(array, Streamed))
    check_room(path.parent, needed, "write to a disk")
    with path.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                if not isinstance(array, Streamed):
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
                    continue
                head = {"descr": np.lib.format.dtype_to_descr(array.dtype), "shape": array.shape}
                np.lib.format.write_array_header_1_0(member, {**head, "fortran_order": False})
                for _, part in chunks(array):
                    member.write(np.ascontiguousarray(part).data)
