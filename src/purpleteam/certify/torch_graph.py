"""Reads the graph of a PyTorch module, by `torch.export`, as layers that share its parameters."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from purpleteam.certify.layers import Convolution, Dense, Stacked
from purpleteam.certify.network import (
    Builder,
    Network,
    Shape,
    Unsupported,
    constant,
    max_pool,
    pair,
)
from purpleteam.core.errors import ModelError, reason_of


def read_module(module: nn.Module, shape: Shape) -> list[Network]:
    """Read a module in eval mode by `torch.export`: a graph for each row of numbers it returns."""
    tensors = next(iter(module.parameters()), torch.zeros(1))
    image = torch.zeros(1, *shape, dtype=tensors.dtype, device=tensors.device)
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # it tells its own failures, many lines of them
    try:
        program = torch.export.export(module, (image,), strict=False)
    except Exception as error:
        raise ModelError(
            f"the net's graph cannot be read: {reason_of(error)}; give it as an ONNX file"
        ) from None
    finally:
        logger.setLevel(level)
    live = dict(module.named_parameters()) | dict(module.named_buffers())
    signature = program.graph_signature
    named = signature.inputs_to_parameters | signature.inputs_to_buffers
    lifted = signature.inputs_to_lifted_tensor_constants
    known: dict[str, Any] = {name: live[key] for name, key in named.items() if key in live}
    known |= {name: program.constants[key] for name, key in named.items() if key not in live}
    known |= {name: program.constants[key] for name, key in lifted.items()}
    return _Exported(shape, known).read(program.graph)


class _Exported(Builder):
    """Reads the graph of an exported program. A `Live` name is a node; others are constants."""

    def __init__(self, image: Shape, known: Mapping[str, Any]) -> None:
        super().__init__(image)
        self.known = dict(known)
        self.live: dict[str, int] = {}

    def read(self, graph: torch.fx.Graph) -> list[Network]:
        graph.eliminate_dead_code()
        results: list[int] = []
        for node in graph.nodes:
            if node.op == "placeholder":
                if node.name not in self.known:
                    self.live[node.name] = 0
            elif node.op == "output":
                names = [part.name for part in _flat(node.args[0]) if hasattr(part, "name")]
                results = [self.live[name] for name in names if name in self.live]
            else:
                self._take(node)
        rows = [result for result in results if len(self.shape(result)) == 1]
        return [self.network(result) for result in rows or results[:1] or [0]]

    def _take(self, node: Any) -> None:
        stack = node.meta.get("nn_module_stack") or {}
        path = next((path for path, _ in reversed(stack.values()) if path), "")
        op = getattr(node.target, "_opname", getattr(node.target, "__name__", str(node.target)))
        op = op.removesuffix("_")  # the graph says by whom the tensor is used that it changed
        place = f"{path or 'the net itself'} ({op})"
        args = list(node.args)
        names = [a.name for a in _flat(args) if isinstance(a, torch.fx.Node)]
        sources = [self.live[name] for name in names if name in self.live]
        given = [self._value(a) for a in args]
        named = {key: self._value(value) for key, value in node.kwargs.items()}
        if not sources:  # of constants: computed as it is
            self.known[node.name] = node.target(*given, **named)
            return
        ends = all(user.op == "output" for user in node.users)
        kind = getattr(node.meta.get("val"), "dtype", torch.float32)
        if not kind.is_floating_point:
            raise Unsupported(f"no bound goes through layer {place}: it rounds to {kind}")
        if op in _SAME or (op in ("softmax", "log_softmax") and ends):  # no order is changed
            self.live[node.name] = sources[0]
            return
        if node.target is operator.getitem:
            self.live[node.name] = sources[0]
            return
        if op not in _READERS:
            known = (
                "linear, conv2d, batch_norm, relu and its kin, clamp, pooling, add, flatten, cat"
            )
            raise Unsupported(f"no bound goes through layer {place}; known: {known}")
        out = tuple(node.meta["val"].shape[1:]) if hasattr(node.meta.get("val"), "shape") else ()
        call = _Call(self, sources, given, named, out, place)
        try:
            self.live[node.name] = _READERS[op](call)
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise call.refuse(reason_of(error)) from None

    def _value(self, given: Any) -> Any:
        if isinstance(given, torch.fx.Node):
            return _NODE if given.name in self.live else self.known[given.name]
        if isinstance(given, list | tuple):
            return [self._value(part) for part in given]
        return given


_NODE = object()  # stands for a live value among arguments


def _flat(args: Sequence[Any]) -> Iterator[Any]:
    for part in args:
        if isinstance(part, list | tuple):
            yield from _flat(part)
        else:
            yield part


@dataclass(frozen=True)
class _Call:
    """One call of an operator: the nodes it takes, its arguments, what it returns and where."""

    builder: Builder
    sources: list[int]
    args: list[Any]
    named: dict[str, Any]
    out: Shape
    place: str

    def arg(self, number: int, name: str, default: Any = None) -> Any:
        value = self.args[number] if len(self.args) > number else self.named.get(name, default)
        return default if value is None else value

    def refuse(self, why: str) -> Unsupported:
        return Unsupported(f"no bound goes through layer {self.place}: {why}")


def _linear(call: _Call) -> int:
    weight, offset = call.args[1], call.arg(2, "bias")
    if len(call.builder.shape(call.sources[0])) != 1 or weight is _NODE:
        raise call.refuse("it is no linear layer of a row of numbers; flatten before it")
    return call.builder.add(Dense(weight, offset), call.sources, call.place)


def _addmm(call: _Call) -> int:
    offset, _, weight = call.args[:3]
    return call.builder.add(Dense(weight.t(), offset), call.sources, call.place)


def _conv(call: _Call) -> int:
    padding = call.arg(4, "padding", 0)
    weight = call.args[1]
    stride, dilation = pair(call.arg(3, "stride", 1)), pair(call.arg(5, "dilation", 1))
    if isinstance(padding, str):
        reach = [wide * (side - 1) for side, wide in zip(weight.shape[-2:], dilation, strict=True)]
        if padding == "same" and any(side % 2 for side in reach):
            raise call.refuse("padding 'same' of an even kernel")
        padding = [side // 2 for side in reach] if padding == "same" else 0
    layer = Convolution(
        weight, call.arg(2, "bias"), stride, pair(padding), dilation, call.arg(6, "groups", 1)
    )
    return call.builder.add(layer, call.sources, call.place)


def _norm(call: _Call) -> int:
    weight, bias, mean, variance = (call.arg(k, "") for k in range(1, 5))
    if mean is None or variance is None:
        raise call.refuse("it normalises by the batch: an image's answer hangs on the others")
    stabiliser = (
        call.args[7] if len(call.args) > 7 else call.args[6] if len(call.args) > 6 else 1e-5
    )
    return call.builder.normalised(
        call.sources[0], mean, variance, weight, bias, float(stabiliser), call.place
    )


def _clamp(call: _Call, least: Any, most: Any) -> int:
    low = -torch.inf if least is None else float(least)
    high = torch.inf if most is None else float(most)
    return call.builder.clipped(call.sources[0], low, high, call.place)


def _max_pool(call: _Call) -> int:
    kernel = pair(call.args[1])
    stride = pair(call.arg(2, "stride") or kernel)
    padding, dilation = pair(call.arg(3, "padding", 0)), pair(call.arg(4, "dilation", 1))
    if dilation != (1, 1):
        raise call.refuse("a dilated pooling")
    return call.builder.add(
        max_pool(call.builder.shape(call.sources[0]), call.out, kernel, stride, padding),
        call.sources,
        call.place,
    )


def _avg_pool(call: _Call) -> int:
    kernel = pair(call.args[1])
    if call.arg(4, "ceil_mode", False) or call.arg(6, "divisor_override"):
        raise call.refuse("an average pooling with ceil_mode or another divisor")
    return call.builder.averaged(
        call.sources[0],
        kernel,
        pair(call.arg(2, "stride") or kernel),
        pair(call.arg(3, "padding", 0)),
        bool(call.arg(5, "count_include_pad", True)),
        call.place,
    )


def _adaptive(call: _Call) -> int:
    sides = call.builder.shape(call.sources[0])[-2:]
    asked = call.args[1] if isinstance(call.args[1], list) else [call.args[1]] * 2
    target = pair([side if want is None else want for side, want in zip(sides, asked, strict=True)])
    if any(side % want for side, want in zip(sides, target, strict=True)):
        raise call.refuse(f"{sides} does not divide into {target}")
    kernel = (sides[0] // target[0], sides[1] // target[1])
    return call.builder.averaged(call.sources[0], kernel, kernel, (0, 0), True, call.place)


def _mean(call: _Call) -> int:
    shape = call.builder.shape(call.sources[0])
    axes = call.args[1] if len(call.args) > 1 else None
    if len(shape) != 3 or axes is None or sorted(axis % 4 for axis in axes) != [2, 3]:
        raise call.refuse("a mean over other axes than rows and columns")
    kernel = (shape[1], shape[2])
    pooled = call.builder.averaged(call.sources[0], kernel, kernel, (0, 0), True, call.place)
    return call.builder.reshaped(pooled, call.out, call.place)


def _add(call: _Call, sign: float = 1.0) -> int:
    scale = sign * float(call.named.get("alpha", 1))
    first, second = call.args[:2]
    if first is _NODE and second is _NODE:
        left, right = call.sources if len(call.sources) == 2 else call.sources * 2
        if scale != 1:
            right = call.builder.scaled(right, scale, None, call.place)
        return call.builder.summed(left, right, call.place)
    if first is _NODE:
        return call.builder.scaled(call.sources[0], 1.0, scale * constant(second), call.place)
    return call.builder.scaled(call.sources[0], scale, constant(first), call.place)


def _mul(call: _Call) -> int:
    first, second = call.args[:2]
    if first is _NODE and second is _NODE:
        raise call.refuse("a product of two parts of the net")
    return call.builder.scaled(
        call.sources[0], second if first is _NODE else first, None, call.place
    )


def _div(call: _Call) -> int:
    if call.args[0] is not _NODE or call.args[1] is _NODE:
        raise call.refuse("a quotient whose divisor hangs on the image")
    return call.builder.scaled(call.sources[0], 1 / constant(call.args[1]), None, call.place)


def _reshape(call: _Call) -> int:
    return call.builder.reshaped(call.sources[0], call.out, call.place)


def _permute(call: _Call) -> int:
    order = [axis % (len(call.out) + 1) for axis in call.args[1]]
    if order[0] != 0:
        raise call.refuse("it moves the axis of images")
    return call.builder.reshaped(
        call.sources[0], call.out, call.place, [axis - 1 for axis in order[1:]]
    )


def _transpose(call: _Call) -> int:
    rank = len(call.out) + 1
    first, second = (axis % rank for axis in call.args[1:3])
    order = list(range(rank))
    order[first], order[second] = second, first
    return _permute(replace(call, args=[call.args[0], order]))


def _bound(call: _Call, side: int) -> int:
    values = [part for part in call.args[:2] if isinstance(part, torch.Tensor)]
    if len(call.sources) != 1 or not values or values[0].numel() != 1:
        raise call.refuse("a minimum or maximum of more than a number and a part of the net")
    return _clamp(call, *((values[0], None) if side < 0 else (None, values[0])))


def _cat(call: _Call) -> int:
    shapes = [call.builder.shape(source) for source in call.sources]
    if call.arg(1, "dim", 0) % (len(shapes[0]) + 1) != 1 or any(
        part is not _NODE for part in call.args[0]
    ):
        raise call.refuse("parts that do not lie along the channels")
    return call.builder.add(Stacked(tuple(shape[0] for shape in shapes)), call.sources, call.place)


_SAME = frozenset(
    {"dropout", "feature_dropout", "alpha_dropout", "clone", "detach", "alias", "contiguous"}
    | {"lift_fresh_copy", "to", "_to_copy", "native_dropout"}
)
_READERS: Mapping[str, Callable[[_Call], int]] = {
    "linear": _linear,
    "addmm": _addmm,
    "conv2d": _conv,
    "batch_norm": _norm,
    "relu": lambda call: call.builder.rectified(call.sources[0], 0.0, call.place),
    "leaky_relu": lambda call: call.builder.rectified(
        call.sources[0], call.arg(1, "negative_slope", 0.01), call.place
    ),
    "prelu": lambda call: call.builder.rectified(call.sources[0], call.args[1], call.place),
    "clamp": lambda call: _clamp(call, call.arg(1, "min"), call.arg(2, "max")),
    "clamp_min": lambda call: _clamp(call, call.args[1], None),
    "clamp_max": lambda call: _clamp(call, None, call.args[1]),
    "clip": lambda call: _clamp(call, call.arg(1, "min"), call.arg(2, "max")),
    "hardtanh": lambda call: _clamp(call, call.arg(1, "min_val", -1), call.arg(2, "max_val", 1)),
    "relu6": lambda call: _clamp(call, 0, 6),
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool2d": _adaptive,
    "mean": _mean,
    "add": _add,
    "sub": lambda call: _add(call, -1.0),
    "rsub": lambda call: _add(replace(call, args=call.args[1::-1]), -1.0),
    "neg": lambda call: call.builder.scaled(call.sources[0], -1.0, None, call.place),
    "mul": _mul,
    "div": _div,
    **dict.fromkeys(("flatten", "view", "reshape", "squeeze", "unsqueeze"), _reshape),
    "permute": _permute,
    "transpose": _transpose,
    "maximum": lambda call: _bound(call, -1),
    "minimum": lambda call: _bound(call, 1),
    "cat": _cat,
}
