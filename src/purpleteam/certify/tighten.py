"""CROWN for the inner neurons that intervals leave undecided, a node at a time."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from purpleteam.certify.bends import Activation, MaxPool
from purpleteam.certify.bounds import Backward, Boxes, Choices
from purpleteam.certify.boxes import Box
from purpleteam.certify.layers import Convolution, Dense, Linear
from purpleteam.certify.network import Network
from purpleteam.certify.scaling import Scaling

SPEED = 2e9  # products a second of a core in linear forms
OTHER = 8  # products for which a number counts in other layers
MEMORY = 256 << 20  # bytes of linear forms at a time


def bent_at(network: Network, boxes: Boxes, number: int) -> Tensor:
    """Say (N, ...) which neurons of a node some layer after it does not pass on as a line."""
    bent = torch.zeros_like(boxes[number].lower, dtype=torch.bool)
    for user in network.users[number]:
        layer = network[user].layer
        if isinstance(layer, Activation | MaxPool):
            bent |= layer.bent(boxes[number])
    return bent


def curved(network: Network) -> tuple[int, ...]:
    """Return the nodes before a bend whose boxes by intervals may be loose, in order."""
    mixed = [0] * (network.root + 1)  # 0: one pixel; 1: a sum of pixels, exact; 2: more than that
    wanted = []
    for number in range(network.root + 1, len(network)):
        node = network[number]
        most = max(mixed[source] for source in node.inputs)
        if isinstance(node.layer, Dense | Convolution):
            mixed.append(2 if most else 1)
        else:
            mixed.append(
                most if len(node.inputs) == 1 and not isinstance(node.layer, MaxPool) else 2
            )
        users = (network[user].layer for user in network.users[number])
        if mixed[number] == 2 and any(isinstance(layer, Activation | MaxPool) for layer in users):
            wanted.append(number)
    return tuple(wanted)


def tighten(
    network: Network, boxes: Boxes, *, memory: int = MEMORY, rounding: bool = True
) -> Boxes:
    """Return boxes of the same images made tighter by CROWN where a layer is bent.

    Nodes are visited in order, each with the boxes before it as they are by then; a box never
    grows, since what was known before is kept.
    """
    boxes = list(boxes)
    for number in curved(network):
        bent = bent_at(network, boxes, number).flatten(1)
        most = int(bent.sum(1).max()) if len(bent) else 0
        if most == 0:
            continue
        lower, upper = (side.flatten(1).clone() for side in boxes[number])
        order = bent.sum(1).argsort(stable=True)
        row = 8 * lower.element_size() * max(math.prod(network.shape(k)) for k in range(number + 1))
        place = 0
        while place < len(order):
            # images of about as many undecided neurons go together; the first says how many fit
            most = max(int(bent[order[place]].sum()), 1)
            images = order[place : place + max(1, memory // (row * most))]
            place += len(images)
            _tighten(
                network,
                boxes,
                number,
                images,
                bent,
                (lower, upper),
                max(1, memory // row),
                rounding,
            )
        shape = boxes[number].lower.shape
        boxes[number] = Box(lower.reshape(shape), upper.reshape(shape))
        boxes = onward(network, boxes, number, rounding=rounding)
    return boxes


def cost_of_rows(network: Network) -> dict[int, float]:
    """Return about how many seconds of one core a form of each node takes on its way back.

    Counted, not measured, so that what is affordable does not hang on a clock.
    """
    costs, spent = {}, 0.0
    for number in range(network.root + 1, len(network)):
        layer, size = network[number].layer, math.prod(network.shape(number))
        spent += size * (layer.terms[0] if isinstance(layer, Dense | Convolution) else OTHER)
        costs[number] = spent / SPEED
    return costs


def _tighten(
    network: Network,
    boxes: Boxes,
    number: int,
    images: Tensor,
    bent: Tensor,
    sides: tuple[Tensor, Tensor],
    most_rows: int,
    rounding: bool,
) -> None:
    counts = bent[images].sum(1)
    images = images[counts > 0]
    if len(images) == 0:
        return
    most = int(counts.max())
    # Each image's undecided neurons, the last of them again where it has fewer than another.
    neurons = bent[images].to(torch.int8).topk(most, 1, sorted=True).indices
    neurons = torch.where(
        bent[images].gather(1, neurons),
        neurons,
        bent[images].to(torch.int8).argmax(1, keepdim=True),
    )
    part = [Box(box.lower[images], box.upper[images]) for box in boxes[: number + 1]]
    step = max(1, most_rows // (2 * len(images)))
    for some in torch.split(neurons, step, 1):
        for sign, side, better in ((1, sides[0], torch.maximum), (-1, sides[1], torch.minimum)):
            form, start, total, reach = _one_hot(
                network, some, number, sign, part[number].lower.dtype
            )
            back = Backward(network, part, Choices(), rounding, False)
            found = back.bound({start: form}, total, reach)
            now = side[images].gather(1, some)
            side[images[:, None], some] = better(now, sign * found)


def _one_hot(
    network: Network, neurons: Tensor, number: int, sign: int, dtype: torch.dtype
) -> tuple[Tensor, int, Tensor, Tensor]:
    """Return forms (N, K, ...) of single neurons, brought back through the affine layer before.

    With the node that they are of, what is added to them, and the magnitudes that this sums up.
    """
    node, flat = network[number], neurons.flatten()
    factor = torch.full(flat.shape, float(sign), dtype=dtype, device=flat.device)
    total, reach = torch.zeros_like(factor), torch.zeros_like(factor)
    while isinstance(node.layer, Scaling) and node.inputs[0] > network.root:
        expand = node.layer.factor.expand(1, *node.shape).flatten()
        if node.layer.offset is not None:
            offset = factor * node.layer.offset.expand(1, *node.shape).flatten()[flat]
            total, reach = total + offset, reach + offset.abs()
        factor = factor * expand[flat]
        number = node.inputs[0]
        node = network[number]
    if isinstance(node.layer, Linear):
        (source,) = node.inputs
        rows = node.layer.rows(flat, network.shape(source), node.shape)
        bias = node.layer.bias
        if bias is not None:
            total = total + factor * bias.expand(node.shape).flatten()[flat]
            summed = cast("Tensor", node.layer.bias_summed).expand(node.shape).flatten()[flat]
            reach = reach + factor.abs() * summed
        number = source
    else:
        rows = torch.zeros(len(flat), math.prod(node.shape), dtype=dtype, device=flat.device)
        rows = rows.scatter_(1, flat[:, None], 1).reshape(-1, *node.shape)
    factor = factor.reshape(-1, *(1,) * (rows.ndim - 1))
    form = (rows * factor).reshape(*neurons.shape, *rows.shape[1:])
    return form, number, total.reshape(neurons.shape), reach.reshape(neurons.shape)


def onward(network: Network, boxes: Boxes, number: int, *, rounding: bool = True) -> Boxes:
    """Return the boxes with what a tighter box of a node means for those after it."""
    boxes = list(boxes)
    touched = {number}
    for after in range(number + 1, len(network)):
        node = network[after]
        if touched.intersection(node.inputs):
            inputs = (boxes[source] for source in node.inputs)
            boxes[after] = node.layer.interval(*inputs, rounding=rounding).meet(boxes[after])
            touched.add(after)
    return boxes
