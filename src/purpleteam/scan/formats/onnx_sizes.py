"""How much an ONNX graph makes of few bytes: values, steps of loops, functions in functions.

Only what follows from the constants of the file counts, and each size is a lower bound; what is
not known counts as one number. Operators: https://onnx.ai/onnx/operators
"""

import math
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from purpleteam.core.protobuf import Field, Reader
from purpleteam.scan.formats.problem import Problem

MAX_NUMBERS = 1 << 30  # of one value
MAX_STEPS = 1 << 26  # of a loop, those around it counted
MOST_RUNS = 200_000  # of nodes, beside each of them once
MAX_DEPTH = 40  # of graphs and functions in one another
MOST_KNOWN = 64  # numbers of a value that are followed, such as a shape
MOST_TOLD = 20
ROUNDS = 32  # of a loop in which something grows
WHILE = (1 << 63) - 1  # the count of a loop that its condition ends
_BROADCAST = """Add Sub Mul Div Pow Max Min Sum Mean Mod And Or Xor Where Equal Less Greater
    LessOrEqual GreaterOrEqual BitwiseAnd BitwiseOr BitwiseXor PRelu BitShift"""
_NUMBERS_KEPT = "Identity Cast Floor Ceil Abs Reshape Flatten Squeeze Unsqueeze"
_KEPT = f"""{_NUMBERS_KEPT} CastLike Neg Exp Log Sqrt Relu LeakyRelu Elu Selu Celu Gelu Sigmoid Tanh
    Erf Round Sign Not Clip Softmax LogSoftmax Softplus Softsign HardSigmoid HardSwish Mish Dropout
    BatchNormalization LayerNormalization InstanceNormalization LRN CumSum Trilu Reciprocal Sin Cos
    Tan Transpose DepthToSpace SpaceToDepth QuantizeLinear DequantizeLinear RandomNormalLike
    RandomUniformLike Bernoulli ScatterND ScatterElements ReverseSequence EyeLike IsNaN IsInf"""
_RESHAPED = "Transpose Reshape Flatten Squeeze Unsqueeze DepthToSpace SpaceToDepth"
BROADCAST, NUMBERS_KEPT, KEPT, RESHAPED = (
    frozenset(names.split()) for names in (_BROADCAST, _NUMBERS_KEPT, _KEPT, _RESHAPED)
)
SHAPED = {  # operators that are given the shape of what they make, and by which input
    "ConstantOfShape": 0, "Expand": 1, "Col2Im": 1, "CenterCropPad": 1, "AffineGrid": 1,
    "MaxUnpool": 2, "HannWindow": 0, "HammingWindow": 0, "BlackmanWindow": 0, "Resize": 3,
}  # fmt: skip
DTYPES = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 9: "?", 11: "<f8", 12: "<u4", 13: "<u8"}
Number = int | float
Numbers = tuple[Number, ...] | None
FOLDED: dict[str, Callable[[Number, Number], Number | None]] = {
    "Add": lambda a, b: a + b, "Sub": lambda a, b: a - b, "Mul": lambda a, b: a * b,
    "Div": lambda a, b: None if not b else a // b if isinstance(a, int) else a / b,
    "Pow": lambda a, b: a**b if 0 <= b <= MOST_KNOWN and abs(a) < 1 << 31 else None,
}  # fmt: skip


class Value(NamedTuple):
    """What is known of a value: its least count of numbers, its shape and the numbers."""

    size: int = 1
    shape: tuple[int, ...] | None = None
    numbers: Numbers = None


@dataclass
class _Graph:
    nodes: list["_Node"] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


@dataclass
class _Node:
    texts: dict[int, str] = field(default_factory=dict)  # by field: name, operator, domain
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    numbers: dict[str, tuple[Number, ...]] = field(default_factory=dict)  # of its attributes
    values: list[Value] = field(default_factory=list)
    graphs: list[_Graph] = field(default_factory=list)

    @property
    def operator(self) -> str:
        return self.texts.get(4, "")


def inspect_sizes(graph: memoryview, functions: Sequence[memoryview]) -> Iterator[Problem]:
    """Yield what the constants of a graph make too large: a value, or the steps of a loop."""
    parser, named = _Parser(), {}
    main = parser.graph(graph, 0)
    for message in functions:
        told = {part.number: part for part in parser.fields(message) if part.number in (1, 10)}
        domain, name = (told[n].text if n in told else "" for n in (10, 1))
        named[domain, name] = parser.graph(message, 0, function=True)
    run = _Run(named, MOST_RUNS + parser.nodes)
    run.graph(main, {}, [], 1, 0)
    yield from run.found.values()


class _Parser(Reader):
    nodes = 0

    def graph(self, message: memoryview, depth: int, *, function: bool = False) -> _Graph:
        if depth > MAX_DEPTH:
            raise Problem("onnx", f"graphs lie more than {MAX_DEPTH} deep")
        graph = _Graph()
        node, inputs, outputs = (7, 4, 5) if function else (1, 11, 12)
        for part in self.fields(message):
            if part.number == node:
                graph.nodes.append(self.node(part.message, depth))
            elif part.number in (inputs, outputs):
                name = part.text
                if not function:
                    names = (one.text for one in self.fields(part.message) if one.number == 1)
                    name = next(names, "")
                (graph.inputs if part.number == inputs else graph.outputs).append(name)
            elif part.number == 5:
                name, value = self.tensor(part.message)
                graph.values[name] = value
        return graph

    def node(self, message: memoryview, depth: int) -> _Node:
        self.nodes += 1
        node = _Node()
        for part in self.fields(message):
            if part.number in (1, 2):
                (node.inputs if part.number == 1 else node.outputs).append(part.text)
            elif part.number in (3, 4, 7):
                node.texts[part.number] = part.text
            elif part.number == 5:
                name, numbers = "", list[Number]()
                for one in self.fields(part.message):
                    if one.number == 1:
                        name = one.text
                    elif one.number == 5:
                        node.values.append(self.tensor(one.message)[1])
                    elif one.number == 6:
                        node.graphs.append(self.graph(one.message, depth + 1))
                    elif one.number == 22:  # as large as its dense form
                        dims = [row for row in self.fields(one.message) if row.number == 3]
                        node.values.append(_made([n for row in dims for n in row.numbers]))
                    elif one.number in (2, 3, 7, 8):
                        numbers += _plain(one, {2: 4, 7: 4}.get(one.number, 7))
                node.numbers[name] = tuple(numbers[:MOST_KNOWN])
        return node

    def tensor(self, message: memoryview) -> tuple[str, Value]:
        parts = list(self.fields(message))
        shape = [size for part in parts if part.number == 1 for size in part.numbers]
        name = "".join(part.text for part in parts if part.number == 8)
        kind = next((part.value for part in parts if part.number == 2), 0)
        size, numbers = math.prod(shape), list[Number]()
        for part in parts if size <= MOST_KNOWN else ():
            if part.number == 9 and isinstance(kind, int) and kind in DTYPES:
                raw, width = part.message, np.dtype(DTYPES[kind]).itemsize
                numbers += np.frombuffer(raw[: len(raw) // width * width], DTYPES[kind]).tolist()
            elif part.number in (4, 5, 7, 10, 11):
                numbers += _plain(part, part.number)
        return name, Value(size, tuple(shape), tuple(numbers[:MOST_KNOWN]) or None)


def _plain(part: Field, kind: int) -> list[Number]:
    """Return the numbers of a field as fields 4 (float), 10 (double) or others of a tensor."""
    if kind in (4, 10):
        width = 4 if kind == 4 else 8
        raw = part.message[: len(part.message) // width * width]
        return list(np.frombuffer(raw, f"<f{width}").tolist())
    return [number - (1 << 64) if number >> 63 else number for number in part.numbers]


def _made(shape: Sequence[Number]) -> Value:
    sizes = tuple(map(_whole, shape))
    return Value(math.prod(sizes), sizes)


def _whole(number: Number) -> int:
    return int(min(max(number, 0), WHILE)) if number == number else 0


def _broadcast(values: Sequence[Value]) -> Value:
    shapes = [value.shape for value in values if value.shape is not None]
    if len(shapes) < len(values):
        return Value(max(value.size for value in values))
    width = max(map(len, shapes), default=0)
    padded = [(1,) * (width - len(shape)) + shape for shape in shapes]
    return _made([max(sizes) for sizes in zip(*padded, strict=True)])


class _Run:
    """Follows the sizes through the graphs, each node as often as it is called."""

    def __init__(self, functions: Mapping[tuple[str, str], _Graph], left: int) -> None:
        self.functions, self.left = functions, left
        self.found: dict[str, Problem] = {}

    def tell(self, node: _Node, why: str) -> None:
        name = node.texts.get(3) or next(iter(node.outputs), "")
        if len(self.found) < MOST_TOLD:
            text = f"node {name[:80]!r} ({node.operator[:40]}) {why}"
            self.found.setdefault(name, Problem("bomb", text))

    def graph(
        self, graph: _Graph, outer: MutableMapping[str, Value], given: Sequence[Value],
        steps: int, depth: int,
    ) -> list[Value]:  # fmt: skip
        """Return the outputs of a graph that runs `steps` times, with its first inputs given."""
        scope = ChainMap(graph.values | dict(zip(graph.inputs, given, strict=False)), outer)
        for node in graph.nodes:
            self.left -= 1
            if self.left < 0 or depth > MAX_DEPTH:
                self.tell(node, "is in more functions, each calling others, than any net has")
                break
            values = [scope.get(name, Value()) for name in node.inputs]
            largest = max((one.size for one in values), default=1)
            for name, value in zip(node.outputs, self.node(node, values, scope, steps, depth)):  # noqa: B905 - one may be left out
                if value.size > max(MAX_NUMBERS, largest):
                    self.tell(node, f"makes {value.size} numbers of {largest}")
                    value = Value()  # noqa: PLW2901 - told once, and not by each that uses it
                scope[name] = value
        return [scope.get(name, Value()) for name in graph.outputs]

    def node(
        self, node: _Node, values: list[Value], scope: MutableMapping[str, Value], steps: int,
        depth: int,
    ) -> list[Value]:  # fmt: skip
        if (body := self.functions.get((node.texts.get(7, ""), node.operator))) is not None:
            return self.graph(body, {}, values, steps, depth + 1)
        if node.operator == "Loop" and node.graphs:
            return self.loop(node, values, scope, steps, depth)
        ways = [self.graph(one, scope, [], steps, depth + 1) for one in node.graphs]  # If, Scan
        if ways:
            return [max(ends, key=lambda value: value.size) for ends in zip(*ways, strict=False)]
        return [_of_operator(node, values)] * len(node.outputs)

    def loop(
        self, node: _Node, values: list[Value], scope: MutableMapping[str, Value], steps: int,
        depth: int,
    ) -> list[Value]:  # fmt: skip
        trips, going = (_of(values, place).numbers for place in (0, 1))
        counted = bool(trips and node.inputs[0])
        count = _whole(trips[0]) if counted and trips else 1
        endless = not any(node.inputs[1:2]) or going == (1,)  # as far as it is told from outside
        state = [Value(), Value(1, (), (1,) if endless else None), *values[2:]]
        whole, sizes = steps * max(1, count), [value.size for value in values[2:]]
        made, done, grown = state[1:], 0, [1]
        while any(grown) and done < min(max(1, count), ROUNDS) and self.left > 0:
            before = sizes
            made = self.graph(
                node.graphs[0], scope, state, 1 if count == WHILE else whole, depth + 1
            )
            state[2:], done = made[1 : len(state) - 1], done + 1
            sizes = [value.size for value in state[2:]]
            grown = [new - old for old, new in zip(before, sizes, strict=False)]
        never = endless and made[:1] != [] and made[0].numbers == (1,)
        if (never and not any(node.inputs[:1])) or (
            whole > MAX_STEPS and (never or count != WHILE)
        ):
            self.tell(node, f"repeats its body {whole} times" if counted else "never ends")
            return []
        rest = 0 if count == WHILE else max(0, count - done)
        scans = [value.size * (1 if count == WHILE else count) for value in made[len(state) - 1 :]]
        ends = [size + rest * more for size, more in zip(sizes, grown, strict=False)]
        return [Value(size) for size in (*ends, *scans)]


def _of(values: Sequence[Value], place: int) -> Value:
    return values[place] if place < len(values) else Value()


def _of_operator(node: _Node, values: list[Value]) -> Value:
    """Return what is known of what an operator makes."""
    operator, first, second = node.operator, _of(values, 0), _of(values, 1)
    given = _of(values, SHAPED.get(operator, len(values))).numbers
    if operator == "Constant":
        numbers = next(iter(node.numbers.values()), None)
        return node.values[0] if node.values else Value(1, None, numbers)
    if given is not None:
        return _broadcast([first, _made(given)]) if operator == "Expand" else _made(given)
    if operator in ("RandomNormal", "RandomUniform", "ConvTranspose"):
        return _made(node.numbers.get("shape") or node.numbers.get("output_shape", ()))
    if operator in BROADCAST and values:
        made = _broadcast(values)
        return made._replace(numbers=_folded(operator, values, made.size))
    if operator in KEPT:
        shape = None if operator in RESHAPED else first.shape
        return Value(first.size, shape, first.numbers if operator in NUMBERS_KEPT else None)
    match operator:
        case "Tile" | "Resize" | "Upsample":
            place = 2 if operator == "Resize" and len(values) > 2 else 1
            factors = node.numbers.get("scales") or _of(values, place).numbers or ()
            return Value(math.prod((first.size, *(max(1, _whole(one)) for one in factors))))
        case "Range" if len(values) == 3 and all(value.numbers for value in values):
            start, limit, step = (value.numbers[0] for value in values if value.numbers)
            return _made([(limit - start) / (step or 1)])
        case "OneHot" if second.numbers:
            return Value(first.size * max(1, _whole(second.numbers[0])))
        case "Pad":
            pads = node.numbers.get("pads") or node.numbers.get("paddings") or second.numbers or ()
            half = len(pads) // 2
            sizes = first.shape if first.shape and len(first.shape) == half else (1,) * half
            return _made([sum(one) for one in zip(sizes, pads[:half], pads[half:], strict=False)])
        case "Gather" if first.shape and node.numbers.get("axis", (0,))[:1] == (0,):
            return Value(second.size * math.prod(first.shape[1:]))
        case "MatMul" if first.shape and second.shape and len(second.shape) > 1:
            return _made([*first.shape[:-1], second.shape[-1]])
        case "Concat":
            parts = [value.numbers for value in values if value.numbers]
            known = len(parts) == len(values) and sum(map(len, parts)) <= MOST_KNOWN
            numbers = tuple(one for part in parts for one in part) if known else None
            return Value(sum(value.size for value in values), None, numbers)
        case "Shape" if first.shape is not None:
            return Value(len(first.shape), (len(first.shape),), first.shape)
    return Value()


def _folded(operator: str, values: Sequence[Value], count: int) -> Numbers:
    """Return the numbers of small sums and products, from which a shape may be computed."""
    parts = [one * count if len(one) == 1 else one for _, _, one in values if one]
    fold = FOLDED.get(operator)
    if fold is None or len(parts) != 2 or len(values) != 2 or count > MOST_KNOWN:
        return None
    made = [one for pair in zip(*parts, strict=False) if (one := fold(*pair)) is not None]
    fits = len(made) == count and all(abs(one) <= WHILE for one in made)
    return tuple(made) if fits else None
