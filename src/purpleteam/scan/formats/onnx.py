"""What of an ONNX file can do harm: files to read weights from, operators of native libraries."""

from collections.abc import Iterator
from functools import partial

from purpleteam.core.protobuf import Malformed, Reader, TooMany
from purpleteam.scan.formats.problem import Problem

MAX_DEPTH = 40
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
EXTERNAL = 1
MAX_TOP = 100_000  # fields of the model itself

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


def looks_like_onnx(data: memoryview) -> bool:
    """Return whether the file is one protobuf message with a graph and operator sets."""
    try:
        numbers = {field.number for field in Reader(MAX_TOP).fields(data)}
    except Malformed:
        return False
    return {MODEL_GRAPH, MODEL_OPSET} <= numbers


def inspect_onnx(data: memoryview) -> Iterator[Problem]:
    """Yield what is wrong with the file: external data, operators of foreign domains."""
    try:
        yield from _inspect(data)
    except TooMany as error:
        raise Problem("bomb", str(error)) from None
    except Malformed as error:
        raise _bad(str(error)) from None


def _inspect(data: memoryview) -> Iterator[Problem]:
    top = list(Reader(MAX_TOP).fields(data))
    if not {MODEL_GRAPH, MODEL_OPSET} <= {field.number for field in top}:
        raise _bad("the file has no graph or no operator sets")
    walk = _Walk()
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


class _Walk(Reader):
    """Walks the messages of one file."""

    def __init__(self) -> None:
        super().__init__()
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
