"""The parts of an ONNX file that can do harm, read by a small protobuf walk.

An ONNX net is data, but it may name files to read its weights from, and operators that only
a native library brings. Both are found in every graph, also in those inside of operators.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from purpleteam.scan.formats.problem import Malformed, Problem

MAX_DEPTH = 40
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
EXTERNAL = 1
MAX_TOP, MAX_FIELDS = 100_000, 1_000_000
"""Fields of the model itself, and of everything in it."""

# Field numbers of onnx.proto: https://github.com/onnx/onnx
MODEL_GRAPH, MODEL_OPSET, MODEL_TRAINING, MODEL_FUNCTIONS = 7, 8, 20, 25
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_SPARSE = 1, 5, 15
NODE_OPERATOR, NODE_ATTRIBUTE, NODE_DOMAIN = 4, 5, 7
ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS, ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
TENSOR_NAME, TENSOR_EXTERNAL_DATA, TENSOR_LOCATION = 8, 13, 14
FUNCTION_NODE, FUNCTION_ATTRIBUTE = 7, 11


class _Field(NamedTuple):
    number: int
    value: int | memoryview

    @property
    def message(self) -> memoryview:
        """The bytes of a nested message or text; a number there is Malformed."""
        if isinstance(self.value, int):
            raise Malformed("onnx", f"field {self.number} is a number where a message belongs")
        return self.value

    @property
    def text(self) -> str:
        return bytes(self.message).decode("utf-8", "replace")


def looks_like_onnx(data: memoryview) -> bool:
    """Return whether the file is one protobuf message with a graph and operator sets."""
    try:
        numbers = {field.number for field in _Walk(MAX_TOP).fields(data)}
    except Malformed:
        return False
    return {MODEL_GRAPH, MODEL_OPSET} <= numbers


def inspect_onnx(data: memoryview) -> Iterator[Problem]:
    """Yield what is wrong with the file: external data, operators of foreign domains."""
    top = list(_Walk(MAX_TOP).fields(data))
    if not {MODEL_GRAPH, MODEL_OPSET} <= {field.number for field in top}:
        raise Malformed("onnx", "the file has no graph or no operator sets")
    yield from _Walk(MAX_FIELDS).model(top)


class _Walk:
    """Walks the messages of one file, up to a limit of fields."""

    def __init__(self, limit: int) -> None:
        self.limit = self.left = limit
        self.own: set[tuple[str, str]] = set()
        """Domain and name of the operators that the file itself defines."""

    def model(self, top: list[_Field]) -> Iterator[Problem]:
        functions = [field.message for field in top if field.number == MODEL_FUNCTIONS]
        for function in functions:
            parts = [part for part in self.fields(function) if part.number in (1, 10)]
            texts = {part.number: part.text for part in parts}
            self.own.add((texts.get(10, ""), texts.get(1, "")))
        for field in top:
            if field.number == MODEL_GRAPH:
                yield from self.graph(field.message, 0)
            elif field.number == MODEL_TRAINING:
                yield Problem("custom-operator", "the file holds training graphs")
        for function in functions:
            for field in self.fields(function):
                if field.number == FUNCTION_NODE:
                    yield from self.node(field.message, 0)
                elif field.number == FUNCTION_ATTRIBUTE:
                    yield from self.attribute(field.message, 0)

    def graph(self, data: memoryview, depth: int) -> Iterator[Problem]:
        if depth > MAX_DEPTH:
            raise Malformed("onnx", f"graphs lie more than {MAX_DEPTH} deep")
        for field in self.fields(data):
            if field.number == GRAPH_NODE:
                yield from self.node(field.message, depth)
            elif field.number == GRAPH_INITIALIZER:
                yield from self.tensor(field.message)
            elif field.number == GRAPH_SPARSE:
                yield from self.sparse(field.message)

    def node(self, data: memoryview, depth: int) -> Iterator[Problem]:
        operator, domain = "", ""
        for field in self.fields(data):
            if field.number == NODE_OPERATOR:
                operator = field.text
            elif field.number == NODE_DOMAIN:
                domain = field.text
            elif field.number == NODE_ATTRIBUTE:
                yield from self.attribute(field.message, depth)
        if domain not in DOMAINS and (domain, operator) not in self.own:
            yield Problem("custom-operator", f"operator {operator!r} is of domain {domain!r}")

    def attribute(self, data: memoryview, depth: int) -> Iterator[Problem]:
        for field in self.fields(data):
            if field.number in ATTRIBUTE_TENSORS:
                yield from self.tensor(field.message)
            elif field.number in ATTRIBUTE_GRAPHS:
                yield from self.graph(field.message, depth + 1)
            elif field.number in ATTRIBUTE_SPARSE:
                yield from self.sparse(field.message)

    def sparse(self, data: memoryview) -> Iterator[Problem]:
        for field in self.fields(data):
            if field.number in (1, 2):
                yield from self.tensor(field.message)

    def tensor(self, data: memoryview) -> Iterator[Problem]:
        name, places, external = "", [], False
        for field in self.fields(data):
            if field.number == TENSOR_NAME:
                name = field.text
            elif field.number == TENSOR_LOCATION:
                external = external or field.value == EXTERNAL
            elif field.number == TENSOR_EXTERNAL_DATA:
                pair = {inner.number: inner.text for inner in self.fields(field.message)}
                external = True
                if pair.get(1) == "location":
                    places.append(pair.get(2, ""))
        if external:
            where = ", ".join(repr(place[:80]) for place in places[:3]) or "an unnamed file"
            yield Problem("external-data", f"tensor {name[:80]!r} is read from {where}")

    def fields(self, data: memoryview) -> Iterator[_Field]:
        """Yield the fields of one protobuf message; anything else is Malformed."""
        at = 0
        while at < len(data):
            self.left -= 1
            if self.left < 0:
                raise Malformed("bomb", f"the file has more than {self.limit} fields")
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
                raise Malformed("onnx", f"byte {at} begins no field")
            if number == 0 or length > len(data) - at:
                raise Malformed("onnx", f"field {number} at byte {at} reaches behind its end")
            yield _Field(number, data[at : at + length])
            at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Malformed("onnx", f"the number at byte {at} has no end")
