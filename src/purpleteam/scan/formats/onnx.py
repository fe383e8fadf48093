"""What of an ONNX file can do harm: files to read weights from, operators of native libraries."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from purpleteam.scan.formats.problem import Problem

MAX_DEPTH = 40
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
EXTERNAL = 1
MAX_TOP, MAX_FIELDS = 100_000, 1_000_000  # fields of the model itself, and of everything in it

# Field numbers of onnx.proto: https://github.com/onnx/onnx
MODEL_GRAPH, MODEL_OPSET, MODEL_TRAINING, MODEL_FUNCTIONS = 7, 8, 20, 25
FUNCTION_NAME, FUNCTION_DOMAIN = 1, 10
NODE_OPERATOR, NODE_DOMAIN = ("node", 4), ("node", 7)
TENSOR_NAME, TENSOR_EXTERNAL_DATA, TENSOR_LOCATION = ("tensor", 8), ("tensor", 13), ("tensor", 14)
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


class _Field(NamedTuple):
    number: int
    value: int | memoryview

    @property
    def message(self) -> memoryview:
        if isinstance(self.value, int):
            raise _bad(f"field {self.number} is a number where a message belongs")
        return self.value

    @property
    def text(self) -> str:
        return str(self.message, "utf-8", "replace")


def looks_like_onnx(data: memoryview) -> bool:
    """Return whether the file is one protobuf message with a graph and operator sets."""
    try:
        numbers = {field.number for field in _Walk(MAX_TOP).fields(data)}
    except Problem:
        return False
    return {MODEL_GRAPH, MODEL_OPSET} <= numbers


def inspect_onnx(data: memoryview) -> Iterator[Problem]:
    """Yield what is wrong with the file: external data, operators of foreign domains."""
    top = list(_Walk(MAX_TOP).fields(data))
    if not {MODEL_GRAPH, MODEL_OPSET} <= {field.number for field in top}:
        raise _bad("the file has no graph or no operator sets")
    walk = _Walk(MAX_FIELDS)
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


class _Walk:
    """Walks the messages of one file, up to a limit of fields."""

    def __init__(self, limit: int) -> None:
        self.limit = self.left = limit
        self.own: set[tuple[str, str]] = set()  # domain and name of what the file itself defines

    def problems(self, kind: str, data: memoryview, depth: int = 0) -> Iterator[Problem]:
        if depth > MAX_DEPTH:
            raise _bad(f"graphs lie more than {MAX_DEPTH} deep")
        texts = {NODE_OPERATOR: "", NODE_DOMAIN: "", TENSOR_NAME: ""}
        places, external = [], False
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
                if pair.get(1) == "location":
                    places.append(pair.get(2, ""))
        operator, domain, name = texts.values()
        if kind == "node" and domain not in DOMAINS and (domain, operator) not in self.own:
            yield Problem("custom-operator", f"operator {operator!r} is of domain {domain!r}")
        if external:
            where = ", ".join(repr(place[:80]) for place in places[:3]) or "an unnamed file"
            yield Problem("external-data", f"tensor {name[:80]!r} is read from {where}")

    def fields(self, data: memoryview) -> Iterator[_Field]:
        """Yield the fields of one protobuf message; anything else is a Problem."""
        at = 0
        while at < len(data):
            self.left -= 1
            if self.left < 0:
                raise Problem("bomb", f"the file has more than {self.limit} fields")
            key, at = _varint(data, at)
            number, wire = key >> 3, key & 7
            if wire == 0:
                value, at = _varint(data, at)
                yield _Field(number, value)
                continue
            if wire == 2:
                length, at = _varint(data, at)
            elif wire in (1, 5):
                length = 8 if wire == 1 else 4
            else:
                raise _bad(f"byte {at} begins no field")
            if number == 0 or length > len(data) - at:
                raise _bad(f"field {number} at byte {at} reaches behind its end")
            yield _Field(number, data[at : at + length])
            at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise _bad(f"the number at byte {at} has no end")
