"""A net as a graph of layers that bounds go through, read from a PyTorch module or an ONNX file."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.certify.bends import Activation, Clip, MaxPool, Rectifier
from purpleteam.certify.layers import (
    Convolution,
    Dense,
    Layer,
    Pair,
    Rearranged,
    Sum,
)
from purpleteam.certify.scaling import BatchNorm, Scaling
from purpleteam.core.errors import ModelError
from purpleteam.models.black_box import FAINTEST, BlackBox, OnnxFile
from purpleteam.models.devices import device_of, exact_arithmetic
from purpleteam.models.guard import Guarded, Order, guarded, switched

Shape = tuple[int, ...]  # of what a layer returns for one image


class Unsupported(ModelError):
    """A layer that no bound goes through; the message names it and its place."""


@dataclass(frozen=True, eq=False)
class Node:
    """A layer at its place: which nodes it takes, by number, and what it returns for one image."""

    layer: Layer
    inputs: tuple[int, ...]
    shape: Shape
    place: str


@dataclass(frozen=True, eq=False)
class Network:
    """A feed-forward net. Node 0 is the image, (C, H, W); the last node is the logits."""

    image: Shape
    nodes: tuple[Node, ...]  # node 0 left out: the layer of node i is nodes[i - 1]

    def __len__(self) -> int:
        return len(self.nodes) + 1

    def __getitem__(self, number: int) -> Node:
        return self.nodes[number - 1]

    def shape(self, number: int) -> Shape:
        return self.nodes[number - 1].shape if number else self.image

    @property
    def classes(self) -> int:
        return self.shape(len(self.nodes))[0]

    @cached_property
    def memory(self) -> tuple[tuple[bool, tuple[int, ...]], ...]:
        """What becomes of boxes when a node has taken them, for node 1 and on.

        Whether the memory of its input is of no more use, and which nodes' boxes nothing takes
        any more. What is rearranged may be a view of what it was.
        """
        holder = list(range(len(self)))  # the node whose memory one is in
        for number, node in enumerate(self.nodes, 1):
            if isinstance(node.layer, Rearranged):
                holder[number] = holder[node.inputs[0]]
        last = [0] * len(self)  # the last node that takes what is in one's memory
        for number, node in enumerate(self.nodes, 1):
            for source in node.inputs:
                last[holder[source]] = number
        told = []
        for number, (first, *others) in enumerate((node.inputs for node in self.nodes), 1):
            alone = not others and holder[first] != 0  # 0: the caller's
            done = (one for one in range(number) if last[holder[one]] == number)
            told.append((alone and last[holder[first]] == number, tuple(done)))
        return tuple(told)

    @cached_property
    def root(self) -> int:
        """The last node up to which each neuron hangs on one pixel: its box is exact."""
        users = self.users
        number = 0
        while len(users[number]) == 1:
            layer = self[(after := users[number][0])].layer
            if not isinstance(layer, Scaling | Activation | Rearranged) or after == len(self.nodes):
                break
            number = after
        return number

    @cached_property
    def users(self) -> tuple[tuple[int, ...], ...]:
        """For each node the nodes that take it."""
        takers: list[list[int]] = [[] for _ in range(len(self))]
        for number, node in enumerate(self.nodes, 1):
            for source in node.inputs:
                takers[source].append(number)
        return tuple(map(tuple, takers))

    def values(self, x: Tensor, at: int = 0) -> list[Tensor]:
        """Return what each node gives where node `at`, the image or up to `root`, gives `x`."""
        values = [x] * (at + 1)  # of those before, which no node after `at` takes
        for node in self.nodes[at:]:
            values.append(node.layer.value(*(values[source] for source in node.inputs)))
        return values

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes)."""
        return self.values(x)[-1]

    def by_batch(self, x: Tensor) -> tuple[Tensor, Network]:
        """Return the logits of a batch (N, C, H, W), and the net that normalises by that batch.

        Batch normalisation takes the mean and variance of these images, as it does in training, and
        becomes part of the layer before it where that one is linear; gradients go through all.
        """
        values, nodes = [x], list(self.nodes)
        for number, node in enumerate(self.nodes, 1):
            inputs = [values[source] for source in node.inputs]
            layer, source = node.layer, node.inputs[0]
            if isinstance(layer, BatchNorm):
                layer = layer.by_batch(*inputs)
                before = nodes[source - 1].layer if source else None
                if isinstance(before, Dense | Convolution) and self.users[source] == (number,):
                    nodes[source - 1] = replace(nodes[source - 1], layer=before.scaled(layer))
                    nodes[number - 1] = replace(node, layer=Rearranged(node.shape))
                else:
                    nodes[number - 1] = replace(node, layer=layer)
            values.append(layer.value(*inputs))
        return values[-1], Network(self.image, tuple(nodes))

    def to(self, dtype: torch.dtype, device: torch.device | None = None) -> Network:
        """Return the net in another number format, cut off from the parameters it was read from."""
        moved = [replace(node, layer=node.layer.to(dtype, device)) for node in self.nodes]
        return Network(self.image, tuple(moved))


def network_of(model: object, shape: Sequence[int]) -> Network:
    """Return the graph of a classifier of images (C, H, W); its tensors are the model's own.

    Raises:
        Unsupported: it has a layer that no bound goes through; named with its place.
        ModelError: it only answers, or its graph cannot be read, or answers otherwise than it.
    """
    order = getattr(model, "order", None)  # a file has one too
    if isinstance(model, Guarded):
        model = model.model
    # Both readers build on this file.
    from purpleteam.certify.onnx_graph import read_onnx
    from purpleteam.certify.torch_graph import read_module

    file = model if isinstance(model, OnnxFile) else None
    if not isinstance(model, nn.Module) or (isinstance(model, BlackBox) and not file):
        raise ModelError("the model only answers: a bound needs its layers; give its file or net")
    with _evaluating(model), exact_arithmetic(device_of(model)):
        networks = read_onnx(file, tuple(shape)) if file else read_module(model, tuple(shape))
        if file:
            model = copy.copy(file)
            model.order = None
        return _in_order(_answering(model, networks), order)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in eval mode for a while, and leave the mode of each part as it was."""
    was = {name: part.training for name, part in module.named_modules()}
    try:
        switched(module)
        yield
    finally:
        for name, part in module.named_modules():
            part.training = was.get(name, False)


def _in_order(network: Network, order: Order | None) -> Network:
    if order is None:
        return network
    chosen = torch.eye(network.classes)[list(order.places)]
    builder = Builder(network.image, list(network.nodes))
    builder.add(Dense(chosen), (len(network.nodes),), "order of classes")
    return builder.network()


@torch.no_grad()
def _answering(model: Any, networks: list[Network]) -> Network:
    """Return the graph that answers as the model does; one that does not was misread."""
    tensors = next(model.parameters(), torch.zeros(1, dtype=torch.float32))
    dtype = torch.float64 if tensors.dtype == torch.float64 else torch.float32
    near = 1e-3 if tensors.dtype.itemsize >= 4 else 5e-2
    rng = torch.Generator().manual_seed(0)
    x = (torch.randint(256, (2, *networks[0].image), generator=rng) / 255).to(tensors.device)
    said = guarded(model)(x).to(dtype)
    for network in networks:
        values = network.to(dtype, x.device).values(x.to(dtype))
        least, ours = float(np.log(FAINTEST)), values[-1]
        # a softmax at the end is left out of the graph, and of a file's answer it is undone
        forms = (ours, ours.softmax(1), ours.log_softmax(1).clamp_min(least), ours.log())
        widest = max(float(value.abs().max().nan_to_num()) for value in values)
        reach = near * float(said.abs().max().nan_to_num()) + near / 1000 * widest
        if any(f.shape == said.shape and torch.allclose(said, f, 0, reach, True) for f in forms):
            return network
    raise ModelError(
        "the net's graph as it is read answers otherwise than the net, so that no bound of it "
        "would hold: its answer is random, rounded or mixes images; export it to ONNX anew"
    )


class Builder:
    """Collects nodes; what a name of the source stands for is a number, a tensor or a node."""

    def __init__(self, image: Shape, nodes: list[Node] | None = None) -> None:
        self.image = image
        self.nodes = nodes or []

    def add(self, layer: Layer, inputs: Sequence[int], place: str) -> int:
        """Add a node, and return its number."""
        shapes = [self.shape(source) for source in inputs]
        with torch.no_grad():
            given = [torch.zeros(1, *shape, dtype=torch.float32) for shape in shapes]
            shape = tuple(layer.to(torch.float32, torch.device("cpu")).value(*given).shape[1:])
        self.nodes.append(Node(layer, tuple(inputs), shape, place))
        return len(self.nodes)

    def shape(self, number: int) -> Shape:
        return self.nodes[number - 1].shape if number else self.image

    def network(self, last: int | None = None) -> Network:
        """Return the net up to a node, the logits; ModelError where that is no row of numbers."""
        last = len(self.nodes) if last is None else last
        if len(shape := self.shape(last)) != 1 or last == 0:
            raise ModelError(f"the net returns {shape} for an image, not a row of logits")
        return Network(self.image, tuple(self.nodes[:last]))

    # What both kinds of source are made of.

    def scaled(self, node: int, factor: Any, offset: Any, place: str) -> int:
        shape, parts = self.shape(node), [constant(factor)]
        parts += [] if offset is None else [constant(offset)]
        for number, part in enumerate(parts):  # each as it broadcasts to one image
            one = part[0] if part.ndim == len(shape) + 1 and len(part) == 1 else part
            if np.broadcast_shapes(one.shape, shape) != shape:
                raise Unsupported(f"{place}: a constant {tuple(part.shape)} widens {shape}")
            parts[number] = one
        return self.add(Scaling(*parts), [node], place)

    def clipped(self, node: int, low: float, high: float, place: str) -> int:
        if (low, high) == (0, math.inf):
            return self.rectified(node, 0.0, place)
        return self.add(Clip(low, high), [node], place)

    def summed(self, left: int, right: int, place: str) -> int:
        shapes = self.shape(left), self.shape(right)
        if shapes[0] != shapes[1]:
            raise Unsupported(f"{place}: a sum of {shapes[0]} and {shapes[1]}, which widens one")
        return self.add(Sum(), [left, right], place)

    def reshaped(
        self, node: int, shape: Shape, place: str, order: Sequence[int] | None = None
    ) -> int:
        return self.add(
            Rearranged(tuple(shape), None if order is None else tuple(order)), [node], place
        )

    def rectified(self, node: int, slope: Any, place: str) -> int:
        """Add a ReLU with a slope below 0, which is a number or one for each channel."""
        slope = (
            torch.as_tensor(slope, dtype=torch.float32) if not isinstance(slope, Tensor) else slope
        )
        low, high = float(slope.detach().min()), float(slope.detach().max())
        if not 0 <= low <= high <= 1:
            raise Unsupported(f"{place}: a slope of {low:g} to {high:g} below 0; known: 0 to 1")
        if slope.numel() > 1:
            slope = slope.reshape(-1, *(1,) * (len(self.shape(node)) - 1))
        return self.add(Rectifier(slope), [node], place)

    def normalised(
        self,
        node: int,
        mean: Tensor,
        variance: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        stabiliser: float,
        place: str,
    ) -> int:
        """Add a batch normalisation by its statistics, folded into a factor and an offset."""
        layer = BatchNorm(variance, None, weight, bias, stabiliser)
        return self.add(layer.by(mean, variance, len(self.shape(node))), [node], place)

    def averaged(
        self, node: int, kernel: Pair, stride: Pair, padding: Pair, counts_padding: bool, place: str
    ) -> int:
        """Add an average pooling, which is a convolution of each channel."""
        channels, height, width = self.shape(node)
        share = 1 / (kernel[0] * kernel[1])
        weight = torch.full((channels, 1, *kernel), share, dtype=torch.float32)
        convolution = Convolution(weight, None, stride, padding, groups=channels)
        pooled = self.add(convolution, [node], place)
        if counts_padding or padding == (0, 0):
            return pooled
        shares = convolution.value(torch.ones(1, channels, height, width, dtype=torch.float32))[0]
        return self.scaled(pooled, 1 / shares, None, place)


def constant(value: Any) -> Tensor:
    """Return a number or a tensor as a tensor."""
    return value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float32)


def pair(value: Any) -> Pair:
    """Return a number for both axes, or one for each."""
    if isinstance(value, int):
        return value, value
    numbers = [int(number) for number in value]
    return (numbers[0], numbers[-1])


def max_pool(shape: Shape, out: Shape, kernel: Pair, stride: Pair, before: Pair) -> MaxPool:
    """Return the pooling that gives `out`: rounded up, it looks beyond the image."""
    after = [
        max((result - 1) * step + side - have - pad, 0)
        for result, step, side, have, pad in zip(
            out[-2:], stride, kernel, shape[-2:], before, strict=True
        )
    ]
    return MaxPool(kernel, stride, (before[1], after[1], before[0], after[0]))
