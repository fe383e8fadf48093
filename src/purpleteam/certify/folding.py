"""The same net in fewer layers: scalings and means become parts of the layers beside them."""

from __future__ import annotations

import math
from dataclasses import replace

from purpleteam.certify.layers import Convolution, Dense, Layer, Rearranged
from purpleteam.certify.network import Network, Node
from purpleteam.certify.scaling import Scaling

MANY = 1 << 22  # weights of a layer that is made wider


def folded(network: Network) -> Network:
    """Return the same function, each scaling by channels inside the layer before it.

    A mean over windows before a dense layer becomes part of that: what is bent is then last.

    Of float32 it is rounded once, since float64 holds the products: to a bound that is one
    product more in each sum, for which the error of its arithmetic has room. What offsets were
    added up from is kept: of parts that nearly cancel, the rounding is all that is left.
    """
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
    form = flat.layer.transpose(weight.double(), pool.shape)
    wide = replace(mean, weight=mean.weight.double()).transpose(form, shape).flatten(1)
    before = replace(flat, layer=Rearranged((size,)), shape=(size,))
    layer = replace(dense.layer, weight=wide.to(weight.dtype).contiguous())
    return before, replace(dense, layer=layer)


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
        full = (scaling.factor * 0 if values is None else values).double().expand(1, *node.shape)
        rows.append(full.reshape(node.shape[0], -1))
    if any((full != full[:, :1]).any() for full in rows):
        return None
    factor, shift = (full[:, 0] for full in rows)
    parts = shift.abs()
    if layer.offset is not None and layer.summed is not None:
        shift = layer.offset * factor + shift
        parts = layer.summed * factor.abs() + parts
    weight, dtype = layer.weight, layer.weight.dtype
    weight = weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))
    weight, shift, parts = (value.to(dtype) for value in (weight, shift, parts))
    return replace(layer, weight=weight, offset=shift, parts=parts)
