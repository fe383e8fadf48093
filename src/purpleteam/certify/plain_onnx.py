"""A net as the ONNX that verifiers read: one image, batch norm folded, logits at the end."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from purpleteam.core.errors import ModelError, reason_of
from purpleteam.models.adapters import Normalisation
from purpleteam.models.black_box import session_of

OPSET, IR_VERSION = 17, 8  # the newest that the verifiers of VNN-COMP read without exception
HEADS = ("Softmax", "LogSoftmax")  # they change no order of the classes


def plain_onnx(
    content: bytes, output: str | None = None, normalisation: Normalisation | None = None
) -> tuple[bytes, str]:
    """Return an ONNX net for one image (1, C, H, W) in [0, 1], and which of `HEADS` it left out.

    Args:
        content: the net, with float32 input and its weights inside.
        output: the name of its scores, where it has several outputs.
        normalisation: put in front of it.

    Raises:
        ModelError: it does not take one image of float32, or has layers that are not ONNX's own.
    """
    model = onnx.load_from_string(content)
    graph = model.graph
    weights = {one.name for one in graph.initializer}  # which old files list as inputs too
    _keep(graph.input, [one for one in graph.input if one.name not in weights])
    _keep(graph.output, [one for one in graph.output if output in (None, one.name)])
    if graph.input[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise ModelError("verifiers want a net that takes float32: export it anew as such")
    for end in (graph.input[0], graph.output[0]):
        end.type.tensor_type.shape.dim[0].dim_value = 1
    del graph.value_info[:]  # shapes of other batches
    if normalisation is not None:
        taken, wanted = graph.input[0].name, f"{graph.input[0].name}_normalised"
        for node in graph.node:
            _keep(node.input, [wanted if name == taken else name for name in node.input])
        factor = 1 / np.array(normalisation.std)
        shift, scaled = -np.array(normalisation.mean) * factor, f"{wanted}_{normalisation.clip}"
        layers = _affine(graph, taken, factor, shift, scaled, 4)
        ends = [f"{wanted}_{end}" for end in (0, 1)] if normalisation.clip else []
        for end, name in enumerate(ends):
            graph.initializer.append(numpy_helper.from_array(np.array(end, np.float32), name))
        kind = "Clip" if normalisation.clip else "Identity"
        last = helper.make_node(kind, [scaled, *ends], [wanted])
        _keep(graph.node, [*layers, last, *graph.node])
    with tempfile.TemporaryDirectory() as folder:  # ONNX Runtime folds constants, and most norms
        session_of("the net for one image", model.SerializeToString(), Path(folder) / "net.onnx")
        model = onnx.load(Path(folder) / "net.onnx")
    _keep(model.opset_import, [one for one in model.opset_import if not one.domain])
    try:
        if model.opset_import[0].version > OPSET:
            model = onnx.version_converter.convert_version(model, OPSET)
        for node in model.graph.node:  # the conversion leaves what opset 17 does not know
            kept = [one for one in node.attribute if one.name != "noop_with_empty_axes"]
            _keep(node.attribute, kept)
        head = _without_head(model.graph)
        _fold_norms(model)
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # of onnx, such as of a layer that is another library's
        reason = reason_of(error)
        raise ModelError(f"the net is no plain ONNX of opset {OPSET}: {reason}") from None
    return model.SerializeToString(deterministic=True), head


def _keep(field: Any, kept: list[Any]) -> None:
    del field[:]
    field.extend(kept)


def _affine(graph: Any, taken: str, factor: Any, shift: Any, out: str, rank: int) -> list[Any]:
    """Return two layers that map channels (axis 1) to factor * x + shift."""
    for name, values in (("factor", factor), ("shift", shift)):
        array = np.asarray(values, np.float32).reshape(1, -1, *(1,) * (rank - 2))
        graph.initializer.append(numpy_helper.from_array(array, f"{out}_{name}"))
    return [
        helper.make_node("Mul", [taken, f"{out}_factor"], [f"{out}_scaled"]),
        helper.make_node("Add", [f"{out}_scaled", f"{out}_shift"], [out]),
    ]


def _without_head(graph: Any) -> str:
    last = next(node for node in graph.node if graph.output[0].name in node.output)
    axis = next((one.i for one in last.attribute if one.name == "axis"), -1)
    if last.op_type not in HEADS or axis not in (1, -1):
        return ""
    graph.output[0].name = last.input[0]
    graph.node.remove(last)
    return str(last.op_type)


def _fold_norms(model: Any) -> None:
    """Write each batch norm that follows no layer with weights as a factor and a shift."""
    graph, nodes = model.graph, []
    arrays = {one.name: numpy_helper.to_array(one).astype(float) for one in graph.initializer}
    known = onnx.shape_inference.infer_shapes(model).graph
    shapes = {one.name: one.type.tensor_type.shape.dim for one in (*known.input, *known.value_info)}
    for node in graph.node:
        nodes.append(node)
        if node.op_type == "BatchNormalization":
            weight, bias, mean, variance = (arrays[name] for name in node.input[1:])
            tiny = next((one.f for one in node.attribute if one.name == "epsilon"), 1e-5)
            factor, (taken, out) = (
                weight / np.sqrt(variance + tiny),
                (node.input[0], node.output[0]),
            )
            shift, rank = bias - mean * factor, len(shapes[taken])
            nodes[-1:] = _affine(graph, taken, factor, shift, out, rank)
    _keep(graph.node, nodes)
    used = {name for node in nodes for name in node.input}
    _keep(graph.initializer, [one for one in graph.initializer if one.name in used])
