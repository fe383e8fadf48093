"""What of an ONNX file can do harm: files to read weights from, operators of native libraries.

And tensors that claim other sizes than they have.
"""

import math
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath

from purpleteam.core.protobuf import Malformed, Reader, TooMany
from purpleteam.scan.formats.onnx_sizes import inspect_sizes
from purpleteam.scan.formats.problem import Problem

MAX_DEPTH = 40
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
RUNTIME = (  # operators that are built in to onnxruntime, whose extensions have other domains
    r"com\.microsoft(\.nchwc|\.experimental)?|com\.ms\.internal\.nhwc|ai\.onnx\.(preview\.)?training"
)
EXTERNAL, TEXT = 1, 8
MAX_TOP = 100_000  # fields of the model itself

# Field numbers of onnx.proto: https://github.com/onnx/onnx
MODEL_GRAPH, MODEL_OPSET, MODEL_TRAINING, MODEL_FUNCTIONS = 7, 8, 20, 25
FUNCTION_NAME, FUNCTION_DOMAIN = 1, 10
NODE_OPERATOR, NODE_DOMAIN = ("node", 4), ("node", 7)
TENSOR_NAME, TENSOR_EXTERNAL_DATA, TENSOR_LOCATION = ("tensor", 8), ("tensor", 13), ("tensor", 14)
TENSOR_SHAPE, TENSOR_TYPE, TENSOR_RAW = ("tensor", 1), ("tensor", 2), ("tensor", 9)
TENSOR_NUMBERS = {("tensor", 4): 4, ("tensor", 10): 8}  # bytes of one; others are of any length
TENSOR_TEXTS, TENSOR_OTHERS = ("tensor", 6), {("tensor", number) for number in (5, 7, 11)}
BITS = {  # of a number, by the type of a tensor
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8), **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32), **dict.fromkeys((7, 11, 13, 14), 64), 15: 128,
    **dict.fromkeys((21, 22, 23), 4),
}  # fmt: skip
PARTS: dict[str, dict[int, str]] = {
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor", 6: "graph", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "tensor": {},
}
"""Which message lies in which field of which message, as far as it can do harm."""
_bad = partial(Problem, "onnx")


def looks_like_onnx(data: memoryview) -> bool:
    """Return whether the file is one protobuf message with a graph and operator sets."""
    try:
        numbers = {field.number for field in Reader(MAX_TOP).fields(data)}
    except Malformed:
        return False
    return {MODEL_GRAPH, MODEL_OPSET} <= numbers


def inspect_onnx(data: memoryview, folder: Path | None) -> Iterator[Problem]:
    """Yield what is wrong with the file: external data, operators of foreign domains.

    Args:
        data: the file.
        folder: where it lies; weights in a file that stays in it are as good as its own.
    """
    try:
        yield from _inspect(data, folder)
    except TooMany as error:
        raise Problem("bomb", str(error)) from None
    except Malformed as error:
        raise _bad(str(error)) from None


def _inspect(data: memoryview, folder: Path | None) -> Iterator[Problem]:
    top = list(Reader(MAX_TOP).fields(data))
    if not {MODEL_GRAPH, MODEL_OPSET} <= {field.number for field in top}:
        raise _bad("the file has no graph or no operator sets")
    walk = _Walk(folder)
    functions = [field.message for field in top if field.number == MODEL_FUNCTIONS]
    for function in functions:
        named = {FUNCTION_DOMAIN: "", FUNCTION_NAME: ""}
        named |= {part.number: part.text for part in walk.fields(function) if part.number in named}
        walk.own.add((named[FUNCTION_DOMAIN], named[FUNCTION_NAME]))
    for field in top:
        if field.number == MODEL_GRAPH:
            yield from walk.problems("graph", field.message)
        elif field.number == MODEL_TRAINING:
            yield Problem("custom-operator", "the file holds training graphs")
    for function in functions:
        yield from walk.problems("function", function)
    for field in top:
        if field.number == MODEL_GRAPH:
            yield from inspect_sizes(field.message, functions)


class _Walk(Reader):
    """Walks the messages of one file."""

    def __init__(self, folder: Path | None) -> None:
        super().__init__()
        self.folder = folder
        self.own: set[tuple[str, str]] = set()  # domain and name of what the file itself defines

    def problems(self, kind: str, data: memoryview, depth: int = 0) -> Iterator[Problem]:
        if depth > MAX_DEPTH:
            raise _bad(f"graphs lie more than {MAX_DEPTH} deep")
        texts = {NODE_OPERATOR: "", NODE_DOMAIN: "", TENSOR_NAME: ""}
        places: list[dict[str, str]] = [{}]
        external, shape, data_type = False, [], 0
        held, raw = 0, None  # numbers, bytes
        for field in self.fields(data):
            place = (kind, field.number)
            if part := PARTS[kind].get(field.number):
                yield from self.problems(part, field.message, depth + (part == "graph"))
            elif place in texts:
                texts[place] = field.text
            elif place == TENSOR_LOCATION:
                external = external or field.value == EXTERNAL
            elif place == TENSOR_EXTERNAL_DATA:
                pair = {inner.number: inner.text for inner in self.fields(field.message)}
                external = True
                places[0][pair.get(1, "")] = pair.get(2, "")
            elif place == TENSOR_SHAPE:
                shape += field.numbers
            elif place == TENSOR_TYPE and isinstance(field.value, int):
                data_type = field.value
            elif place == TENSOR_RAW:
                raw = len(field.message)
            elif place in TENSOR_NUMBERS:
                held += len(field.message) // TENSOR_NUMBERS[place]
            elif place in TENSOR_OTHERS:
                one = isinstance(field.value, int)
                held += 1 if one else sum(byte < 0x80 for byte in field.message)  # each ends so
            elif place == TENSOR_TEXTS:
                held += 1
        operator, domain, name = texts.values()
        if kind == "node" and domain not in DOMAINS and (domain, operator) not in self.own:
            own = re.fullmatch(RUNTIME, domain) and not operator.startswith("Python")
            kind_of_it = "unsupported" if own else "custom-operator"
            yield Problem(kind_of_it, f"operator {operator!r} is of domain {domain!r}")
        if external and (why := self._outside(places[0])):
            yield Problem("external-data", f"tensor {name[:80]!r} is read from {why}")
        elif kind == "tensor" and not external:
            claimed, bits = math.prod(shape), BITS.get(data_type, 1)
            wanted = claimed * {22: 0.5, 21: 0.5, 23: 0.5, 14: 2, 15: 2}.get(data_type, 1)
            fits = held == math.ceil(wanted)
            if raw is not None:
                fits, held = raw == -(-claimed * bits // 8), raw
            fits = fits and (data_type in BITS or (data_type == TEXT and raw is None))
            if max(shape, default=0) >= 1 << 63 or not fits:
                yield Problem("tensor", f"tensor {name[:80]!r} claims {claimed} numbers in {held}")

    def _outside(self, told: dict[str, str]) -> str:
        """Say which file outside of the folder, or behind its end, external data name."""
        place, shown = told.get("location", ""), repr(told.get("location", "")[:80])
        parts = (PurePosixPath(place), PureWindowsPath(place))
        if not place or any(one.anchor or ".." in one.parts for one in parts):
            return f"{shown}, which leads out of its folder" if place else "an unnamed file"
        if self.folder is None:
            return f"{shown}, which was not looked for in an archive"
        file = self.folder / place
        if not file.resolve().is_relative_to(self.folder.resolve()) or not file.is_file():
            return f"{shown}, which is not in its folder"
        numbers = [told.get(key, "0") for key in ("offset", "length")]
        if not all(number.isdecimal() and len(number) < 20 for number in numbers):
            return f"{shown}, at {numbers}, which are no numbers"
        if sum(map(int, numbers)) > file.stat().st_size:
            return f"{shown}, behind the end of that file"
        return ""
