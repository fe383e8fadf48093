"""The .npy header (NEP 1): an array of Python objects is a pickle in disguise."""

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
from purpleteam.scan.formats.tensors import MAX_DIMENSIONS, MAX_SIZE

__all__ = ["MAGIC", "NpyHeader", "is_shape", "plain_array", "read_npy", "read_npy_header"]

MAGIC = b"\x93NUMPY"
MAX_HEADER = 10_000
"""NumPy's own limit."""
KINDS = "biufSU"
ITEM_SIZES = frozenset({1, 2, 4, 8})


@dataclass(frozen=True)
class NpyHeader:
    """What the header says; `start` is the first byte behind it."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    start: int


def read_npy_header(data: memoryview) -> NpyHeader:
    """Return the header of a NumPy array; anything else is `Malformed`."""
    if bytes(data[:6]) != MAGIC:
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
        raise _bad(f"the NumPy header cannot be read: {error}"[:200]) from None
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
        and all(type(one) is int and 0 <= one <= MAX_SIZE for one in shape)
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
