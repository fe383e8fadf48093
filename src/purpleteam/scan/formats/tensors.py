"""Number formats, tensors with their values checked, and the .npy format (NEP 1)."""

import ast
import math
import re
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from purpleteam.scan.formats.problem import Problem

MAX_DIMENSIONS = 32
MAX_SIZE = 1 << 31  # largest size of one dimension; an empty tensor could claim any otherwise
ALL_ONES_EXPONENT = 0x7F80  # the bits of a bfloat16 that are all set in NaN and the infinities
NPY_MAGIC = b"\x93NUMPY"
MAX_HEADER = 10_000  # NumPy's own limit
KINDS = "biufSU"
HALF_TRUTH = "of truth values holds another byte than 0 or 1"
ITEM_SIZES = frozenset({1, 2, 4, 8})
DTYPES = {
    name: np.dtype(code)
    for name, code in {
        "float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2",
        "int64": "<i8", "int32": "<i4", "int16": "<i2", "int8": "i1",
        "uint64": "<u8", "uint32": "<u4", "uint16": "<u2", "uint8": "u1", "bool": "u1",
    }.items()
}  # fmt: skip
"""How one number of each format lies in a file; a bfloat16 is read as its 16 bits."""


class Tensor(NamedTuple):
    """A tensor as it lies in a file, and the name of its number format."""

    array: NDArray[Any]
    dtype: str

    def problems(self, name: str) -> Iterator[Problem]:
        """Yield NaN, infinities and truth values that are neither 0 nor 1.

        Minus infinity beside zeros alone is the mask of an attention layer, and none.
        """
        array = self.array
        if self.dtype == "bfloat16":
            finite = not ((array & ALL_ONES_EXPONENT) == ALL_ONES_EXPONENT).any()
        else:
            finite = array.dtype.kind != "f" or bool(np.isfinite(array).all())
        if not finite and not np.isin(self.converted(), (0, -np.inf)).all():
            yield Problem("not-finite", f"tensor {name!r} holds NaN or an infinity")
        elif self.dtype == "bool" and array.size and array.max() > 1:
            yield Problem("tensor", f"tensor {name!r} {HALF_TRUTH}")

    def converted(self) -> NDArray[Any]:
        """Return the array as the store keeps it: every float format becomes float32."""
        array = self.array
        if self.dtype == "bfloat16":
            return (array.astype("<u4") << np.uint32(16)).view("<f4").astype(np.float32)
        if self.dtype == "bool":
            return array.astype(np.bool_)
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                return array.astype(np.float32, copy=False)
        return array.astype(array.dtype.newbyteorder("="), copy=False)


def read_npy_header(data: memoryview) -> tuple[np.dtype[Any], tuple[int, ...], bool, memoryview]:
    """Return number format, shape, whether it lies by column, and what follows the header."""
    if bytes(data[:6]) != NPY_MAGIC:
        raise Problem("unknown-format", "the file is no NumPy array")
    major, minor = bytes(data[6:8]) if len(data) > 12 else (0, 0)
    start = 10 if major == 1 else 12
    length = int.from_bytes(data[8:start], "little")
    if major not in (1, 2, 3) or minor or length > min(MAX_HEADER, len(data) - start):
        why = f"is of version {major}.{minor} (known: 1.0, 2.0, 3.0) and claims {length} bytes"
        raise Problem("unknown-format", f"the NumPy header {why}; at most {MAX_HEADER}")
    try:
        text = str(data[start : start + length], "utf-8" if major == 3 else "latin-1")
        text = re.sub(r"(?<=\d)L(?=[,)])", "", text)  # as Python 2 wrote whole numbers
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fields = ast.literal_eval(text)
            if not isinstance(fields, dict) or fields.keys() != {"descr", "fortran_order", "shape"}:
                raise ValueError("it needs descr, fortran_order, shape, and nothing else")
            dtype = np.lib.format.descr_to_dtype(fields["descr"])
        shape, fortran = fields["shape"], fields["fortran_order"]
        if not is_shape(shape) or type(fortran) is not bool:
            raise ValueError(f"its shape {shape!r} is none")
    except (ValueError, SyntaxError, TypeError, LookupError, MemoryError, RecursionError) as error:
        why = re.sub(r" at 0x[0-9a-f]+", "", str(error))  # else a finding's id changes at each scan
        raise Problem("unknown-format", f"the NumPy header cannot be read: {why}"[:200]) from None
    return dtype, shape, fortran, data[start + length :]


def inspect_npy(data: memoryview, size: int) -> memoryview | None:
    """Return the pickle of an array of Python objects, or None for a whole array of others.

    Args:
        data: the file, or its beginning.
        size: the bytes of the whole file.
    """
    dtype, shape, _, behind = read_npy_header(data)
    if dtype.hasobject:
        return behind
    held, claimed = size - len(data) + len(behind), math.prod(shape) * dtype.itemsize
    if held != claimed:
        raise Problem("tensor", f"the array claims {claimed} bytes and has {held}")
    return None


def read_npy(data: memoryview, name: str) -> NDArray[Any]:
    """Return the array of a .npy file, as numbers or text of this machine's byte order."""
    dtype, shape, fortran, raw = read_npy_header(data)
    return plain_array(name, dtype, shape, raw, fortran)


def is_shape(shape: Any) -> bool:
    """Return whether a value is the shape of an array."""
    sizes = type(shape) is tuple and len(shape) <= MAX_DIMENSIONS
    return sizes and all(type(size) is int and 0 <= size <= MAX_SIZE for size in shape)


def plain_array(
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    raw: bytes | bytearray | memoryview,
    fortran: bool,
) -> NDArray[Any]:
    """Return an array of its own memory; what is neither numbers nor text is a `Problem`."""
    if dtype.hasobject:
        why = f"array {name!r} holds Python objects, which only unpickling could read"
        raise Problem("object-array", why)
    known = dtype.itemsize > 0 if dtype.kind in "SU" else dtype.itemsize in ITEM_SIZES
    if dtype.kind not in KINDS or not known:
        why = "known: whole numbers, floats of 2, 4 or 8 bytes, truth values, text"
        raise Problem("tensor", f"array {name!r} has number format {str(dtype)[:60]!r}; {why}")
    size = math.prod(shape) * dtype.itemsize
    if size != len(raw):
        raise Problem("tensor", f"array {name!r} claims {size} bytes and has {len(raw)}")
    if dtype.kind == "b" and size and np.frombuffer(raw, np.uint8).max() > 1:
        raise Problem("tensor", f"array {name!r} {HALF_TRUTH}")
    try:
        array = np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")
        return array.astype(dtype.newbyteorder("="), order="C", copy=True)
    except ValueError as error:  # an empty array of impossible sizes, text of no characters
        raise Problem("tensor", f"array {name!r} cannot be read: {error}") from None
