"""Reads the graph of an ONNX file as layers, the same ones as those of a PyTorch module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from purpleteam.certify.bends import Clip
from purpleteam.certify.layers import Convolution, Dense, Pair, Stacked
from purpleteam.certify.network import Builder, Network, Shape, Unsupported, max_pool, pair
from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import ModelError, Refused, reason_of
from purpleteam.models.black_box import OnnxFile


def read_onnx(file: OnnxFile, shape: Shape) -> list[Network]:
    """Return the one graph of a model file for images (C, H, W), its normalisation in front.

    Raises:
        Refused: the file is another by now.
        Unsupported: an operator through which no bound goes; named with its place.
    """
    content = Path(file.path).read_bytes()
    if sha256_bytes(content) != file.digest:
        raise Refused(f"{file.path!r} is another file than the one that was opened")
    if file.takes_bytes:
        raise Unsupported(
            f"{file.path!r} takes bytes, which no bound or gradient goes through: "
            "give a net of [0, 1]"
        )
    builder = Builder(shape)
    number = 0
    if file.normalisation is not None:
        layer = file.normalisation
        mean, std = (torch.tensor(side).reshape(-1, 1, 1) for side in (layer.mean, layer.std))
        number = builder.scaled(number, 1 / std, -mean / std, "normalisation")
        if layer.clip:
            number = builder.add(Clip(0.0, 1.0), [number], "normalisation")
    proto = onnx.load_from_string(content)
    reader = _Reader(builder, proto, number, channels_last=file.channels_last)
    return [builder.network(reader.read(file.output))]


class _Reader:
    """Walks the nodes of a graph; a name is a node of the net, or a constant."""

    def __init__(self, builder: Builder, proto: Any, number: int, *, channels_last: bool) -> None:
        self.builder, self.graph = builder, (graph := proto.graph)
        self.opsets = {one.domain: one.version for one in proto.opset_import}
        self.constants: dict[str, np.ndarray[Any, Any]] = {
            part.name: onnx.numpy_helper.to_array(part) for part in graph.initializer
        }
        (image,) = (part.name for part in graph.input if part.name not in self.constants)
        if channels_last:
            channels, height, width = builder.shape(number)
            turned = (height, width, channels)
            number = builder.reshaped(number, turned, "channels last", (1, 2, 0))
        self.live = {image: number}

    def read(self, output: str) -> int:
        """Return the number of the node that gives an output."""
        self.output = output
        for count, node in enumerate(self.graph.node):
            place = f"{node.name or f'node {count}'} ({node.op_type})"
            if any(name in self.live for name in node.input):
                self._take(node, place)
            elif node.output:
                self._compute(node, place)
            if output in self.live:
                break
        return self.live.get(output, 0)

    def _compute(self, node: Any, place: str) -> None:
        """Compute a node of constants as it is, by the file's version of its operator."""
        try:
            given = {name: self.constants[name] for name in node.input if name}
            takes, gives = (
                [onnx.helper.make_empty_tensor_value_info(name) for name in names]
                for names in (given, node.output)
            )
            alone = onnx.helper.make_graph([node], "constant", takes, gives)
            results = ReferenceEvaluator(alone, self.opsets).run(None, given)
        except Exception as error:
            raise ModelError(f"constant {place} cannot be computed: {reason_of(error)}") from None
        self.constants |= dict(zip(node.output, map(np.asarray, results), strict=False))

    def _take(self, node: Any, place: str) -> None:
        op, (out, *_) = node.op_type, node.output
        sources = [self.live[name] for name in node.input if name in self.live]
        if op == "Shape":
            self.constants[out] = np.array((1, *self.builder.shape(sources[0])), np.int64)
        elif op == "Cast" and node.attribute[0].i not in _FLOATS:
            raise Unsupported(f"no bound or gradient is known of layer {place}: it rounds")
        elif op in _SAME or (op in ("Softmax", "LogSoftmax") and out == self.output):
            self.live[out] = sources[0]
        elif op in _READERS:
            values = [self.constants.get(name) for name in node.input]
            tensors = [None if value is None else _tensor(value) for value in values]
            named = {part.name: onnx.helper.get_attribute_value(part) for part in node.attribute}
            live = [name in self.live for name in node.input]
            call = _Call(self.builder, sources, tensors, live, named, place)
            try:
                self.live[out] = _READERS[op](call)
            except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
                raise call.refuse(reason_of(error)) from None
        else:
            known = ", ".join(sorted(_READERS))
            raise Unsupported(f"no bound or gradient is known of layer {place}; known: {known}")


def _tensor(value: np.ndarray[Any, Any]) -> Tensor:
    kind = np.float32 if np.issubdtype(value.dtype, np.floating) else value.dtype
    return torch.from_numpy(np.array(value, kind))


@dataclass(frozen=True)
class _Call:
    """One node: the nodes it takes, its constants (None for a live input), attributes, place."""

    builder: Builder
    sources: list[int]
    tensors: list[Tensor | None]
    live: list[bool]
    named: Mapping[str, Any]
    place: str

    @property
    def source(self) -> int:
        return self.sources[0]

    def given(self, number: int) -> Tensor | None:
        return self.tensors[number] if len(self.tensors) > number else None

    def constant(self, number: int) -> Tensor:
        value = self.given(number)
        if value is None:
            raise self.refuse(f"its input {number} hangs on the image")
        return value

    def axes(self) -> list[int]:
        """Return the axes that it is asked for, as an attribute or as an input."""
        given = self.given(1)
        values = given.tolist() if given is not None else self.named.get("axes", [])
        rank = len(self.builder.shape(self.source)) + 1
        return sorted(int(axis) % rank for axis in values)

    def refuse(self, why: str) -> Unsupported:
        return Unsupported(f"no bound or gradient is known of layer {self.place}: {why}")

    def padding(self, kernel: Pair, stride: Pair, dilation: Pair = (1, 1)) -> list[int]:
        """Return the padding before and after: top, left, bottom, right."""
        auto = self.named.get("auto_pad", b"NOTSET").decode()
        if auto in ("NOTSET", "VALID"):
            return [int(side) for side in self.named.get("pads", [0, 0, 0, 0])]
        before, after = [], []
        sides = self.builder.shape(self.source)[-2:]
        for side, window, step, wide in zip(sides, kernel, stride, dilation, strict=True):
            need = max((-(-side // step) - 1) * step + wide * (window - 1) + 1 - side, 0)
            less, more = need // 2, need - need // 2
            before.append(less if auto == "SAME_UPPER" else more)
            after.append(more if auto == "SAME_UPPER" else less)
        return before + after

    def pooling(self) -> tuple[Pair, Pair, list[int]]:
        kernel, stride = pair(self.named["kernel_shape"]), pair(self.named.get("strides", [1, 1]))
        if pair(self.named.get("dilations", [1, 1])) != (1, 1):
            raise self.refuse("a dilated pooling")
        return kernel, stride, self.padding(kernel, stride)


def _conv(call: _Call) -> int:
    weight, offset = call.constant(1), call.given(2)
    if weight.ndim != 4:
        raise call.refuse("it is no convolution of images")
    stride, wide = (pair(call.named.get(name, [1, 1])) for name in ("strides", "dilations"))
    top, left, bottom, right = call.padding(pair(weight.shape[2:]), stride, wide)
    if (top, left) != (bottom, right):
        raise call.refuse("padding that is not the same on both sides")
    groups = int(call.named.get("group", 1))
    layer = Convolution(weight, offset, stride, (top, left), wide, groups)
    return call.builder.add(layer, [call.source], call.place)


def _gemm(call: _Call) -> int:
    weight, offset = call.constant(1), call.given(2)
    if call.named.get("transA") or not call.live[0]:
        raise call.refuse("the image's part is not its first input")
    weight = weight if call.named.get("transB") else weight.t()
    weight = weight * call.named.get("alpha", 1.0)
    if offset is not None:
        offset = (offset * call.named.get("beta", 1.0)).flatten().expand(len(weight))
    return call.builder.add(Dense(weight, offset), [call.source], call.place)


def _matmul(call: _Call) -> int:
    weight = call.constant(1)
    if weight.ndim != 2 or len(call.builder.shape(call.source)) != 1:
        raise call.refuse("it is no linear layer of a row of numbers")
    return call.builder.add(Dense(weight.t()), [call.source], call.place)


def _norm(call: _Call) -> int:
    weight, bias, mean, variance = map(call.constant, range(1, 5))
    stabiliser = float(call.named.get("epsilon", 1e-5))
    return call.builder.normalised(
        call.source, mean, variance, weight, bias, stabiliser, call.place
    )


def _clip(call: _Call) -> int:
    ends = []
    for number, name, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        value = call.given(number)
        ends.append(float(call.named.get(name, default) if value is None else value))
    return call.builder.clipped(call.source, ends[0], ends[1], call.place)


def _bound(call: _Call, side: int) -> int:
    values = {
        float(value) for tensor in call.tensors if tensor is not None for value in tensor.flatten()
    }
    if len(call.sources) != 1 or len(values) != 1:
        raise call.refuse("a minimum or maximum of more than a number and a part of the net")
    ends = (values.pop(), np.inf) if side < 0 else (-np.inf, values.pop())
    return call.builder.clipped(call.source, *ends, call.place)


def _max_pool(call: _Call) -> int:
    kernel, stride, (top, left, bottom, right) = call.pooling()
    shape = call.builder.shape(call.source)
    sides = (shape[1] + top + bottom, shape[2] + left + right)
    up = bool(call.named.get("ceil_mode", 0))
    out = [
        (-(-(side - window) // step) if up else (side - window) // step) + 1
        for side, window, step in zip(sides, kernel, stride, strict=True)
    ]
    for axis, before in enumerate((top, left)):  # no window lies behind the image
        out[axis] -= up and (out[axis] - 1) * stride[axis] >= shape[1 + axis] + before
    layer = max_pool(shape, (shape[0], *out), kernel, stride, (top, left))
    return call.builder.add(layer, [call.source], call.place)


def _avg_pool(call: _Call) -> int:
    kernel, stride, (top, left, bottom, right) = call.pooling()
    if (top, left) != (bottom, right) or call.named.get("ceil_mode"):
        raise call.refuse("an average pooling that is not the same on both sides")
    counts = bool(call.named.get("count_include_pad", 0))
    return call.builder.averaged(call.source, kernel, stride, (top, left), counts, call.place)


def _global(call: _Call) -> int:
    shape = call.builder.shape(call.source)
    kernel = (shape[1], shape[2])
    return call.builder.averaged(call.source, kernel, kernel, (0, 0), True, call.place)


def _mean(call: _Call) -> int:
    if call.axes() != [2, 3]:
        raise call.refuse("a mean over other axes than rows and columns")
    pooled = _global(call)
    if call.named.get("keepdims", 1):
        return pooled
    return call.builder.reshaped(pooled, call.builder.shape(pooled)[:1], call.place)


def _add(call: _Call, sign: float = 1.0) -> int:
    first, second = call.given(0), call.given(1)
    if first is None and second is None:
        left, right = call.sources
        if sign < 0:
            right = call.builder.scaled(right, -1.0, None, call.place)
        return call.builder.summed(left, right, call.place)
    if first is None:
        return call.builder.scaled(call.source, 1.0, sign * call.constant(1), call.place)
    return call.builder.scaled(call.source, sign, first, call.place)


def _mul(call: _Call) -> int:
    number = 1 if call.live[0] else 0
    return call.builder.scaled(call.source, call.constant(number), None, call.place)


def _div(call: _Call) -> int:
    if not call.live[0]:
        raise call.refuse("a quotient whose divisor hangs on the image")
    return call.builder.scaled(call.source, 1 / call.constant(1), None, call.place)


def _reshape(call: _Call) -> int:
    shape = call.builder.shape(call.source)
    asked = [int(side) for side in call.constant(1).tolist()]
    full = [(1, *shape)[place] if side == 0 else side for place, side in enumerate(asked)]
    if full[0] not in (1, -1) or (full[0] == -1 and -1 in full[1:]):
        raise call.refuse(f"it makes {asked} of an image, which mixes images")
    out = tuple(torch.empty(shape, device="meta").reshape(full[1:]).shape)
    return call.builder.reshaped(call.source, out, call.place)


def _flatten(call: _Call) -> int:
    shape = call.builder.shape(call.source)
    if int(call.named.get("axis", 1)) % (len(shape) + 1) != 1:
        raise call.refuse("it does not keep images apart")
    size = int(np.prod(shape))
    return call.builder.reshaped(call.source, (size,), call.place)


def _squeeze(call: _Call) -> int:
    shape, axes = call.builder.shape(call.source), call.axes()
    kept = [side for axis, side in enumerate(shape, 1) if side != 1 or (axes and axis not in axes)]
    return call.builder.reshaped(call.source, tuple(kept), call.place)


def _unsqueeze(call: _Call) -> int:
    shape = list(call.builder.shape(call.source))
    given = call.given(1)
    axes = given.tolist() if given is not None else call.named.get("axes", [])
    for axis in sorted(int(axis) % (len(shape) + 1 + len(axes)) for axis in axes):
        shape.insert(axis - 1, 1)
    return call.builder.reshaped(call.source, tuple(shape), call.place)


def _transpose(call: _Call) -> int:
    order = [int(axis) for axis in call.named.get("perm", [])]
    if not order or order[0] != 0:
        raise call.refuse("it moves the axis of images")
    shape = call.builder.shape(call.source)
    out = tuple(shape[axis - 1] for axis in order[1:])
    return call.builder.reshaped(call.source, out, call.place, [axis - 1 for axis in order[1:]])


def _concat(call: _Call) -> int:
    if int(call.named["axis"]) % (len(call.builder.shape(call.source)) + 1) != 1 or not all(
        call.live
    ):
        raise call.refuse("parts that do not lie along the channels")
    sizes = tuple(call.builder.shape(source)[0] for source in call.sources)
    return call.builder.add(Stacked(sizes), call.sources, call.place)


_SAME = frozenset({"Identity", "Dropout", "Cast", "CastLike"})
_FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16})
_READERS: Mapping[str, Callable[[_Call], int]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _norm,
    "Relu": lambda call: call.builder.rectified(call.source, 0.0, call.place),
    "LeakyRelu": lambda call: call.builder.rectified(
        call.source, float(call.named.get("alpha", 0.01)), call.place
    ),
    "PRelu": lambda call: call.builder.rectified(call.source, call.constant(1), call.place),
    "Clip": _clip,
    "Max": lambda call: _bound(call, -1),
    "Min": lambda call: _bound(call, 1),
    "MaxPool": _max_pool,
    "AveragePool": _avg_pool,
    "GlobalAveragePool": _global,
    "ReduceMean": _mean,
    "Add": _add,
    "Sub": lambda call: _add(call, -1.0),
    "Neg": lambda call: call.builder.scaled(call.source, -1.0, None, call.place),
    "Mul": _mul,
    "Div": _div,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
}
