"""Arrays of foreign files for data sets: .npy, .npz and pickles, of which nothing is executed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import DataError, Refused
from purpleteam.scan.formats.array_pickle import ArrayReader, PickledArray
from purpleteam.scan.formats.mapped import mapped
from purpleteam.scan.formats.npy import MAGIC, plain_array, read_npy
from purpleteam.scan.formats.problem import Malformed
from purpleteam.scan.formats.zip_layout import read_layout

__all__ = ["read_arrays"]

MAX_DEPTH = 8
MAX_ARRAYS = 200_000
MAX_VALUES = 3_000_000
"""Plain numbers in lists, which may name one another many times."""
MAX_TEXT = 1 << 30
ALONE = "array"


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a data file by name, each C-contiguous, writable, in native byte order.

    A .npy file and a pickle of a single array give one, named `array`. An .npz gives its names.
    A pickle gives the keys of its dict and the places of its tuple or list ("0", "1", ...), inner
    ones behind a slash ("train/images"); a list of numbers or of text is one array; bytes are
    text in UTF-8; None has no entry. Python 2 pickles (CIFAR) are read too.

    Raises:
        DataError: the file does not exist or cannot be read.
        Refused: it is of another kind, or holds anything but numbers and text, such as an array
            of Python objects, which is named.
    """
    try:
        if not path.is_file():
            raise DataError(f"data file {str(path)!r} does not exist")
        return _read(mapped(path))
    except OSError as error:
        raise DataError(f"data file {str(path)!r} cannot be read: {error}") from None
    except Malformed as refusal:
        raise Refused(f"data file {str(path)!r} is refused: {refusal}") from None


def _read(data: memoryview) -> dict[str, NDArray[Any]]:
    head = bytes(data[:6])
    if head == MAGIC:
        return {ALONE: read_npy(data, ALONE)}
    if head[:2] == b"PK":
        return _read_npz(data)
    if head[:2] == b"\x1f\x8b":
        raise Malformed("unknown-format", "the file is packed by gzip; unpack it with gunzip first")
    if not data:
        raise Malformed("unknown-format", "the file is empty")
    arrays: dict[str, NDArray[Any]] = {}
    try:
        for name, array in _Plain().named(ArrayReader(data).read(), "", 0):
            if name in arrays:
                raise Malformed("tensor", f"two arrays are called {name!r}")
            arrays[name] = array
    except RecursionError:
        raise Malformed("bomb", "the pickle holds lists in lists without an end") from None
    if not arrays:
        raise Malformed("tensor", "the pickle holds no array")
    return arrays


def _read_npz(data: memoryview) -> dict[str, NDArray[Any]]:
    archive = read_layout(data)
    if archive.odd:
        raise Malformed("archive", f"the archive has {archive.odd}")
    arrays = {}
    for member in archive.members:
        name = member.removesuffix(".npy")
        if name == member or not name:
            raise Malformed(
                "unknown-format", f"the archive holds {member!r}; an .npz holds .npy files alone"
            )
        arrays[name] = read_npy(archive.read(member), name)
    if not arrays:
        raise Malformed("tensor", "the archive holds no array")
    return arrays


class _Plain:
    """Turns what a pickle describes into arrays; one description becomes one array."""

    def __init__(self) -> None:
        self.made: dict[int, NDArray[Any]] = {}
        self.values = 0
        self.arrays = 0

    def named(self, value: Any, name: str, depth: int) -> Iterator[tuple[str, NDArray[Any]]]:
        if depth > MAX_DEPTH:
            raise Malformed("bomb", f"{name[:80]!r} lies more than {MAX_DEPTH} containers deep")
        if isinstance(value, dict):
            inner = [(_text(key, name), one) for key, one in value.items()]
        elif isinstance(value, (list, tuple)) and self._has_parts(value):
            inner = [(str(place), one) for place, one in enumerate(value)]
        else:
            if value is not None:
                self._count(arrays=1)
                yield name or ALONE, self._array(value, name or ALONE)
            return
        for key, one in inner:
            yield from self.named(one, f"{name}/{key}" if name else key, depth + 1)

    def _has_parts(self, value: list[Any] | tuple[Any, ...]) -> bool:
        """Return whether there are arrays or dicts in it, at any depth."""
        self._count(values=len(value))
        return any(
            isinstance(one, dict)
            or (isinstance(one, PickledArray) and not one.scalar)
            or (isinstance(one, (list, tuple)) and self._has_parts(one))
            for one in value
        )

    def _count(self, *, values: int = 0, arrays: int = 0) -> None:
        self.values, self.arrays = self.values + values, self.arrays + arrays
        if self.values > MAX_VALUES or self.arrays > MAX_ARRAYS:
            raise Malformed(
                "bomb", f"the pickle names over {MAX_ARRAYS} arrays or {MAX_VALUES} plain values"
            )

    def _array(self, value: Any, name: str) -> NDArray[Any]:
        if id(value) not in self.made:
            if isinstance(value, PickledArray):
                self.made[id(value)] = self._pickled(value, name)
            else:
                self.made[id(value)] = self._listed(value, name)
        return self.made[id(value)]

    def _pickled(self, value: PickledArray, name: str) -> NDArray[Any]:
        if value.dtype is None or value.raw is None:
            raise Malformed("tensor", f"array {name!r} has no state")
        dtype = value.dtype.dtype()
        return plain_array(name, dtype, value.shape, value.raw, fortran=value.fortran)

    def _listed(self, value: Any, name: str) -> NDArray[Any]:
        plain = self._leaves(value, name)
        try:
            array = np.array(plain)
        except (ValueError, TypeError, OverflowError):
            raise Malformed("tensor", f"{name!r} is a list of parts of different lengths") from None
        if array.dtype.kind not in "biufU" or array.nbytes > MAX_TEXT:
            raise Malformed("tensor", f"{name!r} is no list of numbers or of text of moderate size")
        if array.dtype.kind == "U" and not _all_text(plain):
            raise Malformed("tensor", f"{name!r} mixes text and numbers")
        return array

    def _leaves(self, value: Any, name: str) -> Any:
        if isinstance(value, (list, tuple)):
            self._count(values=len(value))
            return [self._leaves(one, name) for one in value]
        if isinstance(value, PickledArray):
            return self._pickled(value, name)[()]
        if type(value) is bytes:
            return _text(value, name)
        if isinstance(value, str) and "\0" not in value:
            return value
        if type(value) in (int, float, bool):
            return value
        raise Malformed("tensor", f"{name!r} holds something that is neither a number nor text")


def _all_text(value: Any) -> bool:
    return all(map(_all_text, value)) if isinstance(value, list) else isinstance(value, str)


def _text(value: Any, name: str) -> str:
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            raise Malformed("tensor", f"{name!r} holds bytes that are no text in UTF-8") from None
        if "\0" in value:
            raise Malformed("tensor", f"{name!r} holds bytes that are no text in UTF-8")
    return str(value)
