"""The same net in fewer layers: scalings and means become parts of the layers beside them."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from purpleteam.certify.layers import Affine, Convolution, Dense, Layer, Rearranged
from purpleteam.certify.network import Network, Node
from purpleteam.certify.scaling import Scaling, ordinary

MANY = 1 << 22  # weights of a layer that is made wider


def folded(network: Network) -> Network:
    """Return the same function, each scaling by channels inside the layer before it.

    A mean over windows before a dense layer becomes part of that: what is bent is then last.

    All is multiplied in float64 and rounded once, at the end: to a bound that is one product more
    in each sum, for which the error of its arithmetic has room. What offsets were added up from is
    kept, and what the weights of dense layers were: of parts that nearly cancel, and of rows that
    are nearly the same, the rounding is all that is left.
    """
    kinds = (node.layer.kind for node in network.nodes if isinstance(node.layer, Affine))
    like = next(kinds, None)
    if like is None:
        return network
    return _folded(network.to(torch.float64)).to(like.dtype, like.device)


def _folded(network: Network) -> Network:
    nodes: list[Node] = []
    place = {0: 0}  # of each node that was: where it is now
    for number, one in enumerate(network.nodes, 1):
        node, widened = one, _unpooled(network, number)
        if widened is not None and place[number - 1] == len(nodes):
            before, node = widened
            nodes[-2:] = [replace(before, inputs=nodes[-2].inputs)]
            place[number - 1] = len(nodes)
        source = place[node.inputs[0]]
        alone = source and network.users[node.inputs[0]] == (number,)
        joined = _joined(nodes[source - 1].layer, node) if alone else None
        if joined is None:
            nodes.append(replace(node, inputs=tuple(place[each] for each in node.inputs)))
            source = len(nodes)
        else:
            nodes[source - 1] = replace(nodes[source - 1], layer=joined)
        place[number] = source
    return Network(network.image, tuple(nodes))


def _unpooled(network: Network, number: int) -> tuple[Node, Node] | None:
    """Return a flattening and a dense layer that do as a mean over windows before them does.

    None where this node is no such layer, where its weights would be too many, or where windows
    overlap, so that a weight would be a sum.
    """
    if number < 3 or network.users[number - 2 : number] != ((number - 1,), (number,)):
        return None
    dense, flat, pool = (network[number - back] for back in range(3))
    mean = pool.layer
    if not isinstance(dense.layer, Dense) or not isinstance(flat.layer, Rearranged):
        return None
    if not isinstance(mean, Convolution) or not mean.apart(pool.shape):
        return None
    weight = dense.layer.weight
    shape = network.shape(pool.inputs[0])
    size = math.prod(shape)
    if size * len(weight) > MANY:
        return None
    form = flat.layer.transpose(weight, pool.shape)
    wide = mean.transpose(form, shape).flatten(1).contiguous()
    before = replace(flat, layer=Rearranged((size,)), shape=(size,))
    return before, replace(dense, layer=replace(dense.layer, weight=wide, exact=wide))


def _joined(layer: Layer, node: Node) -> Layer | None:
    """Return a layer with the scaling behind it folded in; None where it is by places."""
    scaling = node.layer
    if not isinstance(scaling, Scaling):
        return None
    if type(layer) is Scaling:
        return layer.behind(scaling)
    if not isinstance(layer, Convolution | Dense):
        return None
    rows = []
    for values in (scaling.factor, scaling.offset):
        full = (scaling.factor * 0 if values is None else values).expand(1, *node.shape)
        rows.append(full.reshape(node.shape[0], -1))
    if any((full != full[:, :1]).any() for full in rows) or not ordinary(scaling.factor):
        return None
    factor, shift = (full[:, 0] for full in rows)
    parts = shift.abs()
    if layer.offset is not None and layer.summed is not None:
        shift = layer.offset * factor + shift
        parts = layer.summed * factor.abs() + parts
    weight = layer.weight * factor.reshape(-1, *(1,) * (layer.weight.ndim - 1))
    exact = weight if isinstance(layer, Dense) else None
    return replace(layer, weight=weight, offset=shift, parts=parts, exact=exact)
