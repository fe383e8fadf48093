"""The safetensors header, read more strictly than the library does.

One JSON object, then the numbers: no duplicate key, no gap, no overlap, nothing behind the
last tensor, and metadata that is plain text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.scan.formats.pickle_walk import walk_pickle
from purpleteam.scan.formats.problem import Malformed, Problem
from purpleteam.scan.formats.tensors import DTYPES, MAX_DIMENSIONS, MAX_SIZE, check_values

MAX_HEADER = 8 << 20
MAX_OPCODES = 100_000
NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
CODE = re.compile(r"\w\(|__\w+__|<\s*/?\s*\w|\bimport\s+\w|\blambda\b|\$[({]|\{\{|[\x00-\x08]")
"""What calls, dunder names, markup, imports and templates have and a description has not."""


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of the header; start and end count from the first byte behind it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """The tensors in file order, the metadata, and where the numbers begin."""

    tensors: tuple[TensorEntry, ...]
    metadata: Mapping[str, str]
    data_start: int


def read_header(data: memoryview) -> Header:
    """Return the header of a well-formed file; anything else is `Malformed`."""
    size, length = len(data), int.from_bytes(data[:8], "little")
    if size < 10 or length > min(MAX_HEADER, size - 8):
        raise _bad(f"the header claims {length} bytes of a file of {size}; at most {MAX_HEADER}")
    if walk_pickle(data, limit=MAX_OPCODES).calls_a_name:
        raise _bad("the file is a pickle as well, which would call something when it is loaded")
    fields = _parse(bytes(data[8 : 8 + length]))
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _bad("the metadata holds something that is no text")
    entries = sorted(
        (_entry(name, value) for name, value in fields.items()),
        key=lambda entry: (entry.start, entry.end),
    )
    end = 0
    for entry in entries:
        if entry.start != end:
            kind = "overlaps the one before" if entry.start < end else "leaves a gap before it"
            raise _bad(f"tensor {entry.name!r} {kind}")
        end = entry.end
    if end != size - 8 - length:
        raise _bad(f"the tensors end at byte {end} of {size - 8 - length}")
    return Header(tuple(entries), metadata, 8 + length)


def read_tensor(data: memoryview, header: Header, entry: TensorEntry) -> NDArray[Any]:
    """Return a tensor as it lies in the file (a bfloat16 as its bits)."""
    shape, code = entry.shape, DTYPES[entry.dtype].numpy
    if entry.start == entry.end:
        return np.zeros(shape, dtype=code)
    place = header.data_start + entry.start
    return np.frombuffer(data, code, math.prod(shape), place).reshape(shape)


def inspect_safetensors(data: memoryview) -> Iterator[Problem]:
    """Yield what is wrong with the file: form, metadata, values."""
    header = read_header(data)
    yield from metadata_problems(header)
    for entry in header.tensors:
        try:
            check_values(entry.name, read_tensor(data, header, entry), entry.dtype)
        except Malformed as malformed:
            yield malformed.problem


def metadata_problems(header: Header) -> Iterator[Problem]:
    """Yield metadata that look like code, for a reader that would run or show them."""
    for key, value in header.metadata.items():
        if CODE.search(key) or CODE.search(value):
            yield Problem("metadata", f"metadata {key[:40]!r} looks like code")


def _parse(text: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_no_duplicates,
            parse_int=_whole,
            parse_float=_whole,
            parse_constant=_whole,
        )
    except (ValueError, RecursionError) as error:
        raise _bad(f"the header is no JSON: {error}") from None
    if not text.startswith(b"{") or not isinstance(fields, dict):
        raise _bad("the header is no JSON object")
    return fields


def _whole(number: str) -> int:
    if not number.isdigit() or len(number) > 20:  # "-0" is none either, for the library
        raise ValueError(f"{number[:20]} is no count")
    return int(number)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    for text in [*fields, *fields.values()]:
        if isinstance(text, str):
            text.encode("utf-8")  # half a surrogate pair is no text for the library
    if len(fields) != len(pairs):
        raise _bad("the header names something twice")
    return fields


def _entry(name: str, value: Any) -> TensorEntry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _bad(f"tensor {name!r} needs dtype, shape and data_offsets, and nothing else")
    if value["dtype"] not in NAMES:
        raise _bad(
            f"tensor {name!r} has number format {value['dtype']!r}; known: {', '.join(NAMES)}"
        )
    shape, offsets = value["shape"], value["data_offsets"]
    counts = _counts(shape) and _counts(offsets)
    if not counts or len(offsets) != 2 or len(shape) > MAX_DIMENSIONS:
        raise _bad(f"tensor {name!r} has a shape or offsets that are no counts")
    dtype = NAMES[value["dtype"]]
    if (
        max(shape, default=0) > MAX_SIZE
        or math.prod(filter(None, shape)) > MAX_SIZE * MAX_SIZE
        or offsets[1] - offsets[0] != math.prod(shape) * DTYPES[dtype].size
    ):
        raise _bad(f"tensor {name!r} has offsets {offsets} that do not fit shape {shape}")
    return TensorEntry(name, dtype, tuple(shape), offsets[0], offsets[1])


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _bad(message: str) -> Malformed:
    return Malformed("safetensors", message)
