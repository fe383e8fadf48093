"""The .npy header: an array of Python objects is a pickle in disguise."""

from __future__ import annotations

import ast
import warnings
from typing import BinaryIO

import numpy as np

from purpleteam.scan.formats.problem import Malformed

__all__ = ["has_objects"]

MAX_HEADER = 64 << 10


def has_objects(file: BinaryIO) -> bool:
    """Return whether the array holds Python objects; the file is left behind the header."""
    if file.read(6) != b"\x93NUMPY":
        raise Malformed("unknown-format", "the file is no NumPy array")
    major = file.read(2)[:1]
    length = int.from_bytes(file.read(2 if major == b"\x01" else 4), "little")
    if length > MAX_HEADER:
        raise Malformed("unknown-format", f"the NumPy header claims {length} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fields = ast.literal_eval(file.read(length).decode("latin-1").strip())
            return bool(np.dtype(fields["descr"]).hasobject)
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise Malformed("unknown-format", f"the NumPy header cannot be read: {error}") from None
