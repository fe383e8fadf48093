"""Tiny models as files, and apps on loopback that answer what a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from purpleteam.core.cards import ModelCard
from purpleteam.serve.engine import Engine

STROKE = np.zeros((28, 28), np.uint8)
STROKE[4:24, 13:15] = 255
OK, JSON = 200, "application/json"
Answer = tuple[int, dict[str, str], bytes]


def halves() -> np.ndarray:
    """Weights (784, 10) that say 0 for ink in the upper half and 1 for ink in the lower."""
    weight = np.full((28, 28, 10), -1.0, np.float32)
    weight[:14, :, 0] = weight[14:, :, 1] = 1.0
    return weight.reshape(784, 10)


def ink(first: int, last: int) -> np.ndarray:
    """Return an image (1, 1, 28, 28) in [0, 1] with ink in the rows from `first` to `last`."""
    image = np.zeros((1, 1, 28, 28), np.float32)
    image[:, :, first:last, 6:22] = 1
    return image


UPPER, LOWER = ink(5, 8), ink(20, 23)


def linear(
    weight: np.ndarray,
    shape: tuple[Any, ...],
    *,
    kind: int = TensorProto.FLOAT,
    end: str | None = None,
    outputs: int = 1,
) -> onnx.ModelProto:
    """Return the net `flatten(x) @ weight` as ONNX, for images of `shape`, batch first."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["logits" if end is None else "product"]),
    ]
    if end is not None:
        nodes.append(helper.make_node(end, ["product"], ["logits"]))
    given = [("logits", TensorProto.FLOAT, [shape[0], weight.shape[1]])]
    given += [("flat", TensorProto.FLOAT, None)] * (outputs - 1)
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("image", kind, list(shape))],
        [helper.make_tensor_value_info(*one) for one in given],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def tiny_engine(weight: np.ndarray | None = None) -> Engine:
    """Return the app's engine around a linear net of ten classes."""
    import onnxruntime

    content = linear(halves() if weight is None else weight, ("n", 1, 28, 28)).SerializeToString()
    card = ModelCard(
        name="tiny",
        digest="sha256:" + "a" * 64,
        onnx_digest="sha256:" + "b" * 64,
        architecture="linear",
        input={"channels": 1, "height": 28, "width": 28, "range": [0, 1]},
        classes=tuple("0123456789"),
    )
    return Engine(card, onnxruntime.InferenceSession(content))


def labels_of(model: Any, x: torch.Tensor) -> list[int]:
    """Return the labels that a black box gives, -1 where it refused."""
    scores = model(x)
    return torch.where(scores.isnan().any(1), -1, scores.nan_to_num().argmax(1)).tolist()


class Script:
    """An app that answers by a function of the image; `seen` are the requests, in order."""

    def __init__(self, predict: Callable[[bytes], Any]) -> None:
        self.predict = predict
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.version: Any = None

    def reply(self, path: str, body: bytes) -> Answer:
        if path.partition("?")[0].endswith("/predict"):
            found = self.predict(body)
            return found if isinstance(found, tuple) else (OK, {}, json.dumps(found).encode())
        if path.endswith("/version") and self.version is not None:
            return OK, {}, json.dumps(self.version).encode()
        return 404, {}, b"{}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgement
    script: Script

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.script.seen.append((self.command, self.path, headers))
        status, extra, content = self.script.reply(self.path, body)
        if status == 0:  # it hangs up
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {"content-length": str(len(content)), **extra}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def scripted(script: Script) -> Iterator[str]:
    """Serve a script on a free loopback port; yield its address."""
    handler = type("Handler", (_Handler,), {"script": script})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def write(folder: Path, model: onnx.ModelProto, name: str = "tiny.onnx") -> Path:
    """Write a model into a folder; return its path."""
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path
