"""Arrays of foreign files for data sets: .npy, .npz and pickles, of which nothing is executed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import DataError, Refused
from purpleteam.scan.formats.pickles import OrderedItems, PickleReader, Symbol
from purpleteam.scan.formats.problem import Problem
from purpleteam.scan.formats.sniff import mapped
from purpleteam.scan.formats.tensors import NPY_MAGIC, is_shape, plain_array, read_npy
from purpleteam.scan.formats.zip_layout import read_layout

_MAKERS = ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
ARRAY_NAMES = frozenset(  # all that a pickle of arrays may hold, by what the last part means
    {f"numpy.{core}.{name}" for core in ("core", "_core") for name in _MAKERS}
    | {"numpy.ndarray", "numpy.dtype", "_codecs.encode", "collections.OrderedDict"}
    | {"builtins.bytes", "__builtin__.bytes"}
)
# How a pickle tells the byte order; Python 2 told it in bytes.
ORDERS = {"<": "<", ">": ">", "|": "=", "=": "=", b"<": "<", b">": ">", b"|": "=", b"=": "="}
FLAGS = (0, 8)  # of numbers, and of text; others mark Python objects
CODE = re.compile(r"[biufSUOVcmM][0-9]{1,9}")
MAX_DEPTH, MAX_ARRAYS = 8, 200_000
MAX_VALUES = 3_000_000  # plain numbers in lists, which may name one another many times
MAX_TEXT = 1 << 30
ALONE = "array"


@dataclass(eq=False)
class _Format:
    """A numpy.dtype; its byte order comes in its state."""

    code: str
    order: str = "="
    settled: bool = False  # whether it was given its state, once; what is in use gets none


@dataclass(eq=False)
class _Array:
    """A numpy.ndarray or a NumPy scalar as the pickle describes it."""

    dtype: _Format | None = None
    shape: tuple[int, ...] = ()
    raw: bytes | bytearray = b""
    fortran: bool = False
    scalar: bool = False  # whether it is a single number of NumPy's, as in a list of labels

    def read(self, name: str) -> NDArray[Any]:
        """Return the array; a number format with parts of its own counts as unknown (void)."""
        if self.dtype is None:
            raise Problem("tensor", f"array {name!r} has no state")
        try:
            dtype = np.dtype(self.dtype.order + self.dtype.code)
        except TypeError:
            raise Problem("tensor", f"there is no number format {self.dtype.code!r}") from None
        return plain_array(name, dtype, self.shape, self.raw, self.fortran)


class _ArrayReader(PickleReader):
    """Reads a pickle of arrays, numbers and text, in dicts, lists and tuples."""

    names: ClassVar = {full: Symbol(full.split(".")[-1]) for full in ARRAY_NAMES}
    keys: ClassVar[tuple[type, ...]] = (str, int, bytes)
    most_parts: ClassVar = MAX_VALUES

    def called(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        match function, arguments:
            case Symbol("_reconstruct"), (Symbol("ndarray"), (0,) as shape, "b" | b"b") if (
                is_shape(shape)  # False is no number, here and for NumPy
            ):
                return _Array()
            case Symbol("dtype"), (str() | bytes() as code, int(0), int(1)):
                text = code if isinstance(code, str) else code.decode("ascii")
                if not CODE.fullmatch(text):
                    raise self.refused(f"names number format {text[:40]!r}")
                return _Format(text)
            case Symbol("scalar"), (_Format(settled=True) as dtype, raw) if type(raw) is bytes:
                return _Array(dtype, (), raw, scalar=True)
            case Symbol("_frombuffer"), (raw, _Format() as dtype, shape, "C" | "F" as order) if (
                type(raw) in (bytes, bytearray) and dtype.settled and is_shape(shape)
            ):
                return _Array(dtype, shape, raw, order == "F")
            case Symbol("encode"), (str() as text, "latin1" | "latin-1"):
                return text.encode("latin-1")
            case Symbol("bytes"), ():
                return b""
            case Symbol("OrderedDict"), ():
                return OrderedItems()
        raise self.refused("calls something in a form that no pickle of arrays has")

    def given(self, target: Any, state: Any) -> None:
        match target, state if type(state) is tuple and float not in map(type, state) else None:
            case _Array(dtype=None), (*version, shape, _Format() as dtype, order, raw) if (
                version in ([], [1]) and dtype.settled and is_shape(shape) and order in (0, 1)
            ):
                if type(raw) not in (bytes, list):
                    raise self.refused("gives an array something else than bytes")
                target.dtype, target.shape, target.fortran = dtype, shape, bool(order)
                target.raw = raw if isinstance(raw, bytes) else b""
            case _Format(settled=False), (3, order, None, None, None, int(), int(), flags) if (
                order in [*ORDERS] and (flags in FLAGS or target.code[0] == "O")
            ):
                target.order, target.settled = ORDERS[order], True
            case _Format(settled=False), (3 | 4, _, _, _, _, *_):
                target.code, target.settled = "V1", True  # with parts, units or subarrays
            case _:
                raise self.refused("gives a state to what has none, or in an unknown form")


def _named_arrays(data: memoryview) -> Iterator[tuple[str, NDArray[Any]]]:
    head = bytes(data[:6])
    if head == NPY_MAGIC:
        yield ALONE, read_npy(data, ALONE)
    elif head[:2] == b"PK":
        archive = read_layout(data)
        if archive.odd:
            raise Problem("archive", f"the archive has {archive.odd}")
        for member in archive.members:
            name = member.removesuffix(".npy")
            if name == member or not name:
                why = f"the archive holds {member!r}; an .npz holds .npy files alone"
                raise Problem("unknown-format", why)
            yield name, read_npy(archive.read(member), name)
    elif head[:2] == b"\x1f\x8b":
        raise Problem("unknown-format", "the file is packed by gzip; unpack it with gunzip first")
    elif not data:
        raise Problem("unknown-format", "the file is empty")
    else:
        yield from _Plain().named(_ArrayReader(data).read(), "", 0)


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
    arrays: dict[str, NDArray[Any]] = {}
    try:
        if not path.is_file():
            raise DataError(f"data file {str(path)!r} does not exist")
        for name, array in _named_arrays(mapped(path)):
            if name in arrays or len(arrays) == MAX_ARRAYS:
                what = f"two arrays are called {name!r}, or there are over {MAX_ARRAYS}"
                raise Problem("tensor", what)
            arrays[name] = array
        if not arrays:
            raise Problem("tensor", "the file holds no array")
    except OSError as error:
        raise DataError(f"data file {str(path)!r} cannot be read: {error}") from None
    except (RecursionError, Problem) as error:
        endless = "the pickle holds lists in lists without an end"
        why = endless if isinstance(error, RecursionError) else error
        raise Refused(f"data file {str(path)!r} is refused: {why}") from None
    return arrays


class _Plain:
    """Turns what a pickle describes into arrays, each description into one."""

    def __init__(self) -> None:
        self.made: dict[int, NDArray[Any]] = {}

    def named(self, value: Any, name: str, depth: int) -> Iterator[tuple[str, NDArray[Any]]]:
        if depth > MAX_DEPTH:
            raise Problem("bomb", f"{name[:80]!r} lies more than {MAX_DEPTH} containers deep")
        if isinstance(value, dict):
            parts = [(_text(key, name), part) for key, part in value.items()]
        elif isinstance(value, (list, tuple)) and self._has_parts(value):
            parts = [(str(place), part) for place, part in enumerate(value)]
        else:
            parts = []
            if value is not None:
                if id(value) not in self.made:
                    self.made[id(value)] = self._array(value, name or ALONE)
                yield name or ALONE, self.made[id(value)]
        for key, part in parts:
            yield from self.named(part, f"{name}/{key}" if name else key, depth + 1)

    def _has_parts(self, value: list[Any] | tuple[Any, ...]) -> bool:
        """Return whether there are arrays or dicts in it, at any depth."""
        return any(
            isinstance(part, dict)
            or (isinstance(part, _Array) and not part.scalar)
            or (isinstance(part, (list, tuple)) and self._has_parts(part))
            for part in value
        )

    def _array(self, value: Any, name: str) -> NDArray[Any]:
        if isinstance(value, _Array):
            return value.read(name)
        plain = self._leaves(value, name)
        try:
            array = np.array(plain)
        except (ValueError, TypeError, OverflowError):
            raise Problem("tensor", f"{name!r} is a list of parts of different lengths") from None
        if array.dtype.kind not in "biufU" or array.nbytes > MAX_TEXT:
            raise Problem("tensor", f"{name!r} is no list of numbers or of text of moderate size")
        if array.dtype.kind == "U" and {*map(type, np.array(plain, object).flat)} - {str, np.str_}:
            raise Problem("tensor", f"{name!r} mixes text and numbers")
        return array

    def _leaves(self, value: Any, name: str) -> Any:
        if isinstance(value, (list, tuple)):
            return [self._leaves(part, name) for part in value]
        if isinstance(value, _Array):
            return value.read(name)[()]
        if type(value) is bytes:
            return _text(value, name)
        if type(value) in (int, float, bool) or (isinstance(value, str) and "\0" not in value):
            return value
        raise Problem("tensor", f"{name!r} holds something that is neither a number nor text")


def _text(value: Any, name: str) -> str:
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            value = "\0"
        if "\0" in value:
            raise Problem("tensor", f"{name!r} holds bytes that are no text in UTF-8")
    return str(value)
