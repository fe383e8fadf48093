"""Writes the graph that bounds go through as an ONNX file, as verifiers read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from torch import Tensor

from purpleteam.certify.bends import Clip, MaxPool, Rectifier
from purpleteam.certify.folding import folded
from purpleteam.certify.layers import Convolution, Dense, Layer, Rearranged, Stacked
from purpleteam.certify.network import Network
from purpleteam.certify.scaling import Scaling

OPSET, IR_VERSION = 17, 8  # the newest that the verifiers of VNN-COMP read without exception


def write_onnx(network: Network) -> bytes:
    """Return the net for one image (1, C, H, W), its weights inside and in float32.

    A normalisation behind a layer with weights is folded into it.
    """
    network = folded(network)
    names = {0: "images"}  # of what each node gives
    nodes: list[Any] = []
    weights: list[Any] = []

    def named(given: Any) -> str:
        if isinstance(given, str):
            return given
        array = given.detach().numpy() if isinstance(given, Tensor) else np.array(given)
        array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        weights.append(numpy_helper.from_array(array, f"constant_{len(weights)}"))
        return str(weights[-1].name)

    def put(kind: str, *inputs: Any, **attributes: Any) -> str:
        given = [named(one) for one in inputs if one is not None]
        nodes.append(helper.make_node(kind, given, [f"layer_{len(nodes)}"], **attributes))
        return str(nodes[-1].output[0])

    for number, node in enumerate(network.nodes, 1):
        names[number] = _put(put, node.layer, [names[source] for source in node.inputs])
    nodes[-1].output[0] = "logits"
    first = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, *network.image])
    last = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, network.classes])
    graph = helper.make_graph(nodes, "net", [first], [last], weights)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _put(put: Any, layer: Layer, sources: list[Any]) -> Any:
    """Write one layer, and return the name of what it gives."""
    x, *others = sources
    match layer:
        case Dense():
            x = put("Gemm", x, layer.weight, layer.offset, transB=1)
        case Convolution():
            sides: Any = {"strides": layer.stride, "pads": layer.padding * 2}
            if _averages(layer):
                sides |= {"kernel_shape": layer.weight.shape[2:], "count_include_pad": 1}
                return put("AveragePool", x, **sides)
            sides |= {"dilations": layer.dilation, "group": layer.groups}
            x = put("Conv", x, layer.weight, layer.offset, **sides)
        case Scaling():
            x, others = put("Mul", x, layer.factor), [layer.offset]
        case Rearranged():
            if layer.order is not None:
                x = put("Transpose", x, perm=[0, *(axis + 1 for axis in layer.order)])
            x = put("Reshape", x, [1, *layer.shape])
        case Stacked():
            return put("Concat", *sources, axis=1)
        case Rectifier() if layer.slope.numel() > 1:
            x = put("PRelu", x, layer.slope)
        case Rectifier():
            slope = float(layer.slope)
            x = put("LeakyRelu", x, **{"alpha": slope}) if slope else put("Relu", x)
        case Clip():
            ends = (end if np.isfinite(end) else "" for end in (layer.least, layer.most))
            x = put("Clip", x, *ends)
        case MaxPool():
            left, right, top, bottom = layer.padding
            pads = [top, left, bottom, right]
            x = put("MaxPool", x, kernel_shape=layer.kernel, strides=layer.stride, pads=pads)
    for other in others:  # those of a Sum, or an offset
        x = x if other is None else put("Add", x, other)
    return x


def _averages(layer: Layer) -> bool:
    """Say whether it is an average pooling: verifiers know those, and few know groups."""
    if not isinstance(layer, Convolution) or layer.offset is not None or layer.dilation != (1, 1):
        return False
    channels, within, *sides = layer.weight.shape
    alone = layer.groups == channels and within == 1
    return alone and bool((layer.weight == 1 / (sides[0] * sides[1])).all())
