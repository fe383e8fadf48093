"""Tensors of foreign files as arrays: number formats, strides within bounds, finite values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.scan.formats.problem import Malformed

__all__ = [
    "DTYPES",
    "MAX_DIMENSIONS",
    "MAX_SIZE",
    "NumberFormat",
    "TensorForm",
    "as_array",
    "check_values",
    "converted",
]

MAX_DIMENSIONS = 32
MAX_SIZE = 1 << 31
"""Largest size of one dimension; an empty tensor could claim any otherwise."""
ALL_ONES_EXPONENT = 0x7F80
"""The bits of a bfloat16 that are all set in NaN and the infinities."""


@dataclass(frozen=True)
class NumberFormat:
    """How one number lies in the file; bfloat16 is read as its 16 bits."""

    name: str
    numpy: str
    size: int


DTYPES: dict[str, NumberFormat] = {
    name: NumberFormat(name, code, np.dtype(code).itemsize)
    for name, code in {
        "float64": "<f8",
        "float32": "<f4",
        "float16": "<f2",
        "bfloat16": "<u2",
        "int64": "<i8",
        "int32": "<i4",
        "int16": "<i2",
        "int8": "i1",
        "uint64": "<u8",
        "uint32": "<u4",
        "uint16": "<u2",
        "uint8": "u1",
        "bool": "u1",
    }.items()
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
    if form.stride == _contiguous(form.shape):
        flat = np.frombuffer(storage, form.dtype.numpy, count, place)
        return flat.reshape(form.shape)
    flat = np.frombuffer(storage, form.dtype.numpy, offset=place)
    steps = tuple(step * flat.itemsize for step in form.stride)
    view = np.lib.stride_tricks.as_strided(flat, form.shape, steps, writeable=False)
    return np.array(view, order="C")


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a tensor whose numbers lie one behind the other."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


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
