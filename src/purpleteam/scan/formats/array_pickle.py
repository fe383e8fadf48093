"""Pickled NumPy arrays, read without NumPy's help and without unpickling.

NumPy pickles an array as a call of `_reconstruct` and a state, or from protocol 5 on as a call of
`_frombuffer`; a scalar as a call of `scalar`; a number format as a call of `dtype` and a state.
These few names are known under their spellings of NumPy 1 and 2, and make descriptions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from purpleteam.scan.formats.allow_list import Symbol
from purpleteam.scan.formats.npy import is_shape
from purpleteam.scan.formats.pickle_opcodes import BINARY, LATER, TEXT
from purpleteam.scan.formats.pickle_reader import OrderedItems, PickleReader
from purpleteam.scan.formats.problem import Malformed

__all__ = ["ARRAY_NAMES", "ArrayReader", "PickledArray"]

_CORES = ("numpy.core", "numpy._core")
ARRAY_NAMES: dict[str, str] = {
    **{f"{core}.multiarray._reconstruct": "reconstruct" for core in _CORES},
    **{f"{core}.multiarray.scalar": "scalar" for core in _CORES},
    **{f"{core}.numeric._frombuffer": "frombuffer" for core in _CORES},
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",
    "__builtin__.bytes": "bytes",
    "builtins.bytes": "bytes",
    "collections.OrderedDict": "ordered",
}
"""Every name that a pickle of arrays may hold, and what it stands for here."""

ORDERS: dict[str | bytes, Literal["<", ">", "="]] = {
    **{"<": "<", ">": ">", "|": "=", "=": "="},
    **{b"<": "<", b">": ">", b"|": "=", b"=": "="},
}
"""How a pickle tells the byte order; Python 2 told it in bytes."""
FLAGS = (0, 8)
"""Of numbers, and of text; others mark Python objects."""
CODE = re.compile(r"[biufSUOVcmM][0-9]{1,9}")


@dataclass(eq=False)
class PickledFormat:
    """A numpy.dtype; its byte order comes in its state."""

    code: str
    order: Literal["<", ">", "="] = "="
    settled: bool = False
    """Whether it was given its state, once; NumPy gives none to what is in use."""

    def dtype(self) -> np.dtype[Any]:
        """Return the number format; one with parts of its own counts as unknown (void)."""
        try:
            return np.dtype(self.code).newbyteorder(self.order)
        except TypeError:
            raise Malformed("tensor", f"there is no number format {self.code!r}") from None


@dataclass(eq=False)
class PickledArray:
    """A numpy.ndarray or a NumPy scalar as the pickle describes it."""

    dtype: PickledFormat | None = None
    shape: tuple[int, ...] = ()
    raw: bytes | None = None
    fortran: bool = False
    scalar: bool = False
    """Whether it is a single number of NumPy's, as in a list of labels."""


class ArrayReader(PickleReader):
    """Reads a pickle of arrays, numbers and text, in dicts, lists and tuples."""

    table: ClassVar[dict[int, Callable[[Any], None]]] = {**BINARY, **TEXT, **LATER}
    keys: ClassVar[tuple[type, ...]] = (str, int, bytes)

    def known(self, module: str, name: str) -> Symbol | None:
        meaning = ARRAY_NAMES.get(f"{module}.{name}")
        return None if meaning is None else Symbol(meaning)

    def called(self, function: Any, arguments: Any) -> Any:
        match function, arguments:
            case Symbol("reconstruct"), (Symbol("ndarray"), (0,), "b" | b"b"):
                return PickledArray()
            case Symbol("dtype"), (str() | bytes() as code, 0, 1):
                return self._format(code)
            case Symbol("scalar"), (PickledFormat(settled=True) as dtype, bytes() as raw) if (
                type(raw) is bytes
            ):
                return PickledArray(dtype, (), raw, scalar=True)
            case Symbol("frombuffer"), (
                bytes() as raw,
                PickledFormat(settled=True) as dtype,
                shape,
                "C" | "F",
            ) if is_shape(shape):
                return PickledArray(dtype, shape, raw, arguments[3] == "F")
            case Symbol("encode"), (str() as text, "latin1" | "latin-1"):
                return text.encode("latin-1")
            case Symbol("bytes"), ():
                return b""
            case Symbol("ordered"), ():
                return OrderedItems()
        raise self.refused("calls something in a form that no pickle of arrays has")

    def given(self, target: Any, state: Any) -> None:
        match target, state if type(state) is tuple else None:
            case PickledArray(dtype=None), (
                *version,
                tuple() as shape,
                PickledFormat(settled=True) as dtype,
                0 | 1 as fortran,
                bytes() | list() as raw,
            ) if version in ([], [1]) and is_shape(shape) and type(raw) in (bytes, list):
                target.dtype, target.shape, target.fortran = dtype, shape, bool(fortran)
                target.raw = raw if isinstance(raw, bytes) else b""
            case PickledFormat(settled=False), (
                3,
                (str() | bytes()) as order,
                None,
                None,
                None,
                int(),
                int(),
                flags,
            ) if order in ORDERS and (flags in FLAGS or target.code[0] == "O"):
                target.order, target.settled = ORDERS[order], True
            case PickledFormat(settled=False), (3 | 4, _, _, _, _, *_):
                target.code, target.settled = "V1", True  # with parts, units or subarrays
            case _:
                raise self.refused("gives a state to what has none, or in an unknown form")

    def _format(self, code: str | bytes) -> PickledFormat:
        text = code.decode("ascii") if isinstance(code, bytes) else code
        if not CODE.fullmatch(text):
            raise self.refused(f"names number format {text[:40]!r}")
        return PickledFormat(text)
