"""Tensors of foreign files as arrays: number formats, strides within bounds, finite values.

The .npy header (NEP 1) is read here too: an array of Python objects is a pickle in disguise.
"""

from __future__ import annotations

import ast
import math
import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.scan.formats.problem import Malformed

MAX_DIMENSIONS = 32
MAX_SIZE = 1 << 31
"""Largest size of one dimension; an empty tensor could claim any otherwise."""
ALL_ONES_EXPONENT = 0x7F80
"""The bits of a bfloat16 that are all set in NaN and the infinities."""
NPY_MAGIC = b"\x93NUMPY"
MAX_HEADER = 10_000
"""NumPy's own limit."""
KINDS = "biufSU"
ITEM_SIZES = frozenset({1, 2, 4, 8})


@dataclass(frozen=True)
class NumberFormat:
    """How one number lies in the file; bfloat16 is read as its 16 bits."""

    name: str
    numpy: str
    size: int


_CODES = {
    "float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2",
    "int64": "<i8", "int32": "<i4", "int16": "<i2", "int8": "i1",
    "uint64": "<u8", "uint32": "<u4", "uint16": "<u2", "uint8": "u1", "bool": "u1",
}  # fmt: skip
DTYPES: dict[str, NumberFormat] = {
    name: NumberFormat(name, code, np.dtype(code).itemsize) for name, code in _CODES.items()
}


@dataclass(frozen=True)
class TensorForm:
    """Where a tensor lies in its storage: all counts in numbers, not in bytes."""

    dtype: NumberFormat
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @property
    def count(self) -> int:
        """How many numbers the tensor has."""
        return math.prod(self.shape)

    def check(self, name: str, storage: int) -> None:
        """Refuse a tensor that reaches outside of its storage, of so many bytes."""
        if len(self.shape) != len(self.stride) or len(self.shape) > MAX_DIMENSIONS:
            raise Malformed("tensor", f"{name} has {len(self.shape)} dimensions")
        numbers = (*self.shape, *self.stride, self.offset)
        if min(numbers) < 0 or max(numbers) > MAX_SIZE:
            raise Malformed("tensor", f"{name} has a size, stride or offset out of range")
        if math.prod(filter(None, self.shape)) > MAX_SIZE * MAX_DIMENSIONS:
            raise Malformed("tensor", f"{name} has an impossible shape")
        available, rest = divmod(storage, self.dtype.size)
        if rest:
            raise Malformed("tensor", f"{name} has a storage of {storage} bytes")
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        if not self.count:
            last = self.offset - 1
        if self.count > available or last >= available:
            raise Malformed(
                "tensor",
                f"{name} claims {self.count} numbers up to place {last} "
                f"of a storage of {available}",
            )


def as_array(form: TensorForm, storage: bytes | memoryview) -> NDArray[Any]:
    """Return the tensor, contiguous, as a view of its storage or a copy; first `form.check`."""
    count, place = form.count, form.offset * form.dtype.size
    if count == 0:
        return np.zeros(form.shape, dtype=form.dtype.numpy)
    if form.stride == tuple(math.prod(form.shape[i + 1 :]) for i in range(len(form.shape))):
        flat = np.frombuffer(storage, form.dtype.numpy, count, place)
        return flat.reshape(form.shape)
    flat = np.frombuffer(storage, form.dtype.numpy, offset=place)
    steps = tuple(step * flat.itemsize for step in form.stride)
    view = np.lib.stride_tricks.as_strided(flat, form.shape, steps, writeable=False)
    return np.array(view, order="C")


def check_values(name: str, array: NDArray[Any], dtype: str) -> None:
    """Refuse a tensor, as it lies in the file, that holds NaN, an infinity or half a truth."""
    if dtype == "bfloat16":
        finite = not ((array & ALL_ONES_EXPONENT) == ALL_ONES_EXPONENT).any()
    else:
        finite = array.dtype.kind != "f" or bool(np.isfinite(array).all())
    if not finite:
        raise Malformed("not-finite", f"tensor {name!r} holds NaN or an infinity")
    if dtype == "bool" and array.size and array.max() > 1:
        raise Malformed("tensor", f"tensor {name!r} of truth values holds another byte than 0 or 1")


def converted(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return the array as the store keeps it: every float format becomes float32."""
    if dtype == "float32":
        return array.astype(np.float32, copy=False)
    if dtype == "bfloat16":
        wide = array.astype("<u4") << np.uint32(16)
        return wide.view("<f4").astype(np.float32)
    if dtype == "bool":
        return array.astype(np.bool_)
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return array.astype(np.float32)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


@dataclass(frozen=True)
class NpyHeader:
    """What the header says; `start` is the first byte behind it."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    start: int


def read_npy_header(data: memoryview) -> NpyHeader:
    """Return the header of a NumPy array; anything else is `Malformed`."""
    if bytes(data[:6]) != NPY_MAGIC:
        raise _bad("the file is no NumPy array")
    major, minor = bytes(data[6:8]) if len(data) > 12 else (0, 0)
    if major not in (1, 2, 3) or minor != 0:
        raise _bad(f"the NumPy header is of version {major}.{minor}; known: 1.0, 2.0, 3.0")
    start = 10 if major == 1 else 12
    length = int.from_bytes(data[8:start], "little")
    if length > min(MAX_HEADER, len(data) - start):
        raise _bad(f"the NumPy header claims {length} bytes; at most {MAX_HEADER}")
    raw = bytes(data[start : start + length])
    try:
        text = raw.decode("utf-8" if major == 3 else "latin-1")
        text = re.sub(r"(?<=\d)L(?=[,)])", "", text)  # as Python 2 wrote whole numbers
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fields = ast.literal_eval(text)
            if not isinstance(fields, dict) or fields.keys() != {"descr", "fortran_order", "shape"}:
                raise _bad("the NumPy header has other keys than descr, fortran_order, shape")
            dtype = np.lib.format.descr_to_dtype(fields["descr"])
    except (ValueError, SyntaxError, TypeError, LookupError, MemoryError, RecursionError) as error:
        why = re.sub(r" at 0x[0-9a-f]+", "", str(error))  # else a finding's id changes at each scan
        raise _bad(f"the NumPy header cannot be read: {why}"[:200]) from None
    shape, fortran = fields["shape"], fields["fortran_order"]
    if not is_shape(shape) or type(fortran) is not bool:
        raise _bad(f"the NumPy header has shape {shape!r}, which is none"[:200])
    return NpyHeader(dtype, shape, fortran, start + length)


def read_npy(data: memoryview, name: str) -> NDArray[Any]:
    """Return the array of a .npy file, as numbers or text of this machine's byte order."""
    header = read_npy_header(data)
    return plain_array(
        name, header.dtype, header.shape, data[header.start :], fortran=header.fortran
    )


def is_shape(shape: Any) -> bool:
    """Return whether a value is the shape of an array."""
    return (
        type(shape) is tuple
        and len(shape) <= MAX_DIMENSIONS
        and all(type(size) is int and 0 <= size <= MAX_SIZE for size in shape)
    )


def plain_array(
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    raw: bytes | memoryview,
    *,
    fortran: bool,
) -> NDArray[Any]:
    """Return an array of its own memory; what is neither numbers nor text is `Malformed`."""
    if dtype.hasobject:
        raise Malformed(
            "object-array", f"array {name!r} holds Python objects, which only unpickling could read"
        )
    known = dtype.itemsize > 0 if dtype.kind in "SU" else dtype.itemsize in ITEM_SIZES
    if dtype.kind not in KINDS or not known:
        raise Malformed(
            "tensor",
            f"array {name!r} has number format {str(dtype)[:60]!r}; known: whole numbers, "
            "floats of 2, 4 or 8 bytes, truth values, text",
        )
    size = math.prod(shape) * dtype.itemsize
    if size != len(raw):
        raise Malformed("tensor", f"array {name!r} claims {size} bytes and has {len(raw)}")
    if dtype.kind == "b" and size and int(np.frombuffer(raw, np.uint8).max()) > 1:
        raise Malformed("tensor", f"array {name!r} of truth values holds another byte than 0 or 1")
    flat = np.frombuffer(raw, dtype) if size else np.zeros(0, dtype)
    try:
        array = flat.reshape(shape, order="F" if fortran else "C")
        return array.astype(dtype.newbyteorder("="), order="C", copy=True)
    except ValueError as error:  # an empty array of impossible sizes, text of no characters
        raise Malformed("tensor", f"array {name!r} cannot be read: {error}") from None


def _bad(message: str) -> Malformed:
    return Malformed("unknown-format", message)
