"""A tiny stored model, written as the store writes one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from purpleteam.core.cards import ModelCard
from purpleteam.core.digest import sha256_file


def write_linear_model(
    folder: Path,
    weight: np.ndarray,
    shape: tuple[int, ...],
    content: bytes | None = None,
    batch: str | int = "batch",
) -> Path:
    """Store the net `flatten(x) @ weight`, or other `content`; return its .onnx file."""
    pixels = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, *shape])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, weight.shape[1]])
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes, "linear", [pixels], [logits], [numpy_helper.from_array(weight, "weight")]
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "tiny.onnx")
    if content is not None:
        (folder / "tiny.onnx").write_bytes(content)
    save_file({"weight": weight}, folder / "tiny.safetensors")
    ModelCard(
        name="tiny",
        digest=sha256_file(folder / "tiny.safetensors"),
        onnx_digest=sha256_file(folder / "tiny.onnx"),
        architecture="linear",
        input={"channels": shape[0], "height": shape[-2], "width": shape[-1], "range": [0, 1]},
        classes=tuple(str(digit) for digit in range(weight.shape[1])),
    ).write(folder / "tiny.json")
    return folder / "tiny.onnx"


def halves() -> np.ndarray:
    """Weights that say 0 for ink in the upper half and 1 for ink in the lower."""
    weight = np.full((28, 28, 10), -1.0, np.float32)
    weight[:14, :, 0] = weight[14:, :, 1] = 1.0
    return weight.reshape(784, 10)
