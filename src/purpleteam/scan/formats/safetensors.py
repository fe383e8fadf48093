"""A safetensors file, read more strictly than by the library: no key twice, no gap, no overlap."""

import json
import math
import re
from functools import partial
from typing import Any

import numpy as np

from purpleteam.scan.formats.problem import Problem
from purpleteam.scan.formats.tensors import DTYPES, MAX_DIMENSIONS, MAX_SIZE, Tensor

MAX_HEADER = 8 << 20
NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
OTHERS = {  # bits of a number, of formats that are not taken over
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "C64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
# What calls, dunder names, markup, imports and templates have and a description has not.
CODE = re.compile(r"\w\(|__\w+__|<\s*/?\s*\w|\bimport\s+\w|\blambda\b|\$[({]|\{\{|[\x00-\x08]")
_bad = partial(Problem, "safetensors")


def read_safetensors(data: memoryview) -> tuple[dict[str, Tensor], list[Problem]]:
    """Return the tensors of a well-formed file, in its order, and metadata that looks like code."""
    size, length = len(data), int.from_bytes(data[:8], "little")
    if size < 10 or length > min(MAX_HEADER, size - 8):
        raise _bad(f"the header claims {length} bytes of a file of {size}; at most {MAX_HEADER}")
    text = bytes(data[8 : 8 + length])
    try:
        fields = HEADER.decode(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _bad(f"the header is no JSON: {error}") from None
    if not text.startswith(b"{") or not isinstance(fields, dict):
        raise _bad("the header is no JSON object")
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _bad("the metadata holds something that is no text")
    entries = [(*_entry(name, value), name) for name, value in fields.items()]
    numbers, end, tensors = data[8 + length :], 0, {}
    for begin, stop, dtype, shape, name in sorted(entries, key=lambda entry: entry[:2]):
        if begin != end:
            kind = "overlaps the one before" if begin < end else "leaves a gap before it"
            raise _bad(f"tensor {name!r} {kind}")
        end = stop
        if end > len(numbers):
            break
        if dtype in OTHERS:
            continue
        array = np.frombuffer(numbers[begin:end], DTYPES[dtype])
        tensors[name] = Tensor(array.reshape(shape), dtype)
    if end != len(numbers):
        raise _bad(f"the tensors end at byte {end} of {len(numbers)}")
    if others := sorted({dtype for _, _, dtype, _, _ in entries if dtype in OTHERS}):
        raise Problem("unsupported", f"the file holds numbers of {', '.join(others)}")
    odd = [key for key, value in metadata.items() if CODE.search(key) or CODE.search(value)]
    return tensors, [Problem("metadata", f"metadata {key[:40]!r} looks like code") for key in odd]


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


HEADER = json.JSONDecoder(
    object_pairs_hook=_no_duplicates, parse_int=_whole, parse_float=_whole, parse_constant=_whole
)


def _entry(name: str, value: Any) -> tuple[int, int, str, list[int]]:
    """Return first byte, byte behind, number format and shape of a tensor of the header."""
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise _bad(f"tensor {name!r} needs dtype, shape and data_offsets, and nothing else")
    kind, shape, offsets = (value[key] for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(kind, str) or kind not in NAMES.keys() | OTHERS.keys():
        raise _bad(f"tensor {name!r} has number format {kind!r}; known: {', '.join(NAMES)}")
    for counts in (shape, offsets):
        if not isinstance(counts, list) or any(type(n) is not int or n < 0 for n in counts):
            raise _bad(f"tensor {name!r} has a shape or offsets that are no counts")
    bits = OTHERS[kind] if kind in OTHERS else 8 * DTYPES[NAMES[kind]].itemsize
    if (
        len(offsets) != 2
        or len(shape) > MAX_DIMENSIONS
        or max(shape, default=0) > MAX_SIZE
        or math.prod(filter(None, shape)) * bits > 8 * MAX_SIZE * MAX_SIZE
        or 8 * (offsets[1] - offsets[0]) != math.prod(shape) * bits
    ):
        raise _bad(f"tensor {name!r} has offsets {offsets} that do not fit shape {shape}")
    return offsets[0], offsets[1], NAMES.get(kind, kind), shape
