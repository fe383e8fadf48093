"""One linear classifier of 6x6 grey images, brought in every way that a model may be brought."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, CLASSES = 6, 3
ATTRIBUTES: dict[str, Any] = {"Cast": {"to": TensorProto.FLOAT}}
OWN_SIDE = 28
"""Of images that an app of `purple serve` takes, of which the first 6x6 pixels count here."""

MODULE = '''
"""The classifier as other people have it; WEIGHT stands beside in a file."""
import types
import numpy as np
import torch
from torch import nn

WEIGHT = np.load("weight.npy").reshape(-1, 3)


class Net(nn.Module):
    """Returns the logits in a form of the hubs."""

    def __init__(self, form=lambda logits: logits):
        super().__init__()
        self.form = form
        self.layer = nn.Linear(len(WEIGHT), 3)
        self.layer.weight.data = torch.from_numpy(WEIGHT.T.copy())
        self.layer.bias.data = torch.from_numpy(-WEIGHT.sum(0) / 2)

    def forward(self, x):
        return self.form(self.layer(x.flatten(1)))


def net():
    return Net()


def hub():
    return Net(lambda logits: types.SimpleNamespace(loss=None, logits=logits))


def auxiliary():
    return Net(lambda logits: (logits, None))


def double():
    return Net().double()


def parallel():
    return nn.DataParallel(Net())


def scripted():
    return torch.jit.freeze(torch.jit.trace(Net().eval(), torch.zeros(1, 1, 6, 6)))


def tensors():
    net = Net()
    return lambda x: net(x)


def arrays():
    def scores(x):
        assert isinstance(x, np.ndarray)
        return (x.reshape(len(x), -1) - 0.5) @ WEIGHT

    return scores


class Maite:
    metadata = {"id": "linear", "index2label": {0: "a", 1: "b", 2: "c"}}

    def __call__(self, batch):
        rows = np.stack([np.asarray(image).ravel() for image in batch])
        scores = np.exp((rows - 0.5) @ WEIGHT)
        return list(scores / scores.sum(1, keepdims=True))


class MaiteNet(Maite):
    def __init__(self):
        self.model = Net()

    def __call__(self, batch):
        with torch.no_grad():
            return list(self.model(torch.stack(list(batch))).softmax(1))


class Labels:
    """What has scikit-learn's `predict` alone, and its classes in another order."""

    classes_ = np.array(["c", "b", "a"])

    def predict(self, rows):
        return np.array(["a", "b", "c"])[((rows - 0.5) @ WEIGHT).argmax(1)]


class Estimator(Labels):
    def predict_proba(self, rows):
        scores = np.exp((rows - 0.5) @ WEIGHT)
        return (scores / scores.sum(1, keepdims=True))[:, ::-1]


def sklearn():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    last = LogisticRegression()
    last.coef_, last.intercept_ = WEIGHT.T, -WEIGHT.sum(0) / 2
    last.classes_, last.n_features_in_ = np.array(["a", "b", "c"]), len(WEIGHT)
    return make_pipeline(last)
'''


@dataclass(frozen=True)
class Adapter:
    """A way to bring the classifier, and what may be asked of it then."""

    bring: Callable[[Path], Any]
    """Prepares a folder, the current one; yields what `--model` says."""
    white_box: bool = False
    gives: str = "scores"
    side: int = SIDE


def factory(name: str, **facts: Any) -> Adapter:
    @contextmanager
    def bring(folder: Path) -> Iterator[str]:
        (folder / "brought.py").write_text(MODULE, "utf-8")
        yield f"brought.py:{name}"

    return Adapter(bring, **facts)


def onnx_file(
    kind: int = TensorProto.FLOAT, last: bool = False, end: str = "", **facts: Any
) -> Any:
    """Return the net as an ONNX file: of bytes, channels last, with an operator at its end."""

    @contextmanager
    def bring(folder: Path) -> Iterator[str]:
        weight = np.load(folder / "weight.npy").reshape(-1, CLASSES)
        scale = 255 if kind == TensorProto.UINT8 else 1
        sides = (SIDE, SIDE, 1) if last else (1, SIDE, SIDE)
        nodes = [("Cast", ["image"], "float"), ("Flatten", ["float"], "flat")]
        nodes += [("Gemm", ["flat", "weight", "offset"], "product" if end else "logits")]
        nodes += [(end, ["product"], "logits")] if end else []
        graph = helper.make_graph(
            [
                helper.make_node(op, given, [out], **ATTRIBUTES.get(op, {}))
                for op, given, out in nodes
            ],
            "linear",
            [helper.make_tensor_value_info("image", kind, ["n", *sides])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])],
            [
                numpy_helper.from_array(weight / np.float32(scale), "weight"),
                numpy_helper.from_array(-weight.sum(0) / 2, "offset"),
            ],
        )
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "net.onnx")
        yield "net.onnx"

    return Adapter(bring, **facts)


def scores_of(folder: Path, pixels: Any) -> Any:
    """Return the logits of one image, in whatever form of numbers in [0, 1]."""
    weight = np.load(folder / "weight.npy").reshape(-1, CLASSES)
    return (np.asarray(pixels, np.float32).reshape(-1) - 0.5) @ weight


def served(
    path: str, answer: Callable[[Path, bytes], Any], says: Any = None, **facts: Any
) -> Adapter:
    """Return the net behind an address on loopback; `says` is what a GET of the path gets."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        folder: Path

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            known = says is not None and self.path == path
            said = says if known and not body else answer(self.folder, body) if body else None
            content = json.dumps(said).encode()
            self.send_response(200 if said is not None else 400)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            pass

    @contextmanager
    def bring(folder: Path) -> Iterator[str]:
        handler = type("Handler", (Handler,), {"folder": folder})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}{path}"
            finally:
                server.shutdown()
                thread.join()

    return Adapter(bring, **facts)


def v2(kind: str, sides: list[int], **facts: Any) -> Adapter:
    """Return the net behind the Open Inference Protocol."""

    def answer(folder: Path, body: bytes) -> Any:
        (given,) = json.loads(body)["inputs"]
        if (given["name"], given["datatype"], given["shape"]) != ("image", kind, [1, *sides]):
            return None
        pixels = np.array(given["data"], np.float32) / (255 if kind == "UINT8" else 1)
        data = scores_of(folder, pixels).tolist()
        return {"outputs": [{"name": "logits", "shape": [1, 3], "datatype": "FP32", "data": data}]}

    inputs = [{"name": "image", "datatype": kind, "shape": [-1, *sides]}]
    outputs = [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}]
    says = {"name": "net", "versions": ["1"], "inputs": inputs, "outputs": outputs}
    return served("/v2/models/net", answer, says, **facts)


def instances(
    path: str, shape: tuple[int, ...], tell: Callable[[Any], Any], **facts: Any
) -> Adapter:
    """Return the net behind `{"instances": [...]}`; it takes images of one shape alone."""

    def answer(folder: Path, body: bytes) -> Any:
        (image,) = json.loads(body)["instances"]
        if np.shape(image) != shape:
            return None
        return {"predictions": [tell(scores_of(folder, image))]}

    return served(path, answer, **facts)


def app(folder: Path, body: bytes) -> Any:
    """Answer as `purple serve` does; an image with a white last pixel is refused."""
    pixels = np.frombuffer(body, np.uint8).reshape(OWN_SIDE, OWN_SIDE)
    label = int(scores_of(folder, pixels[:SIDE, :SIDE] / 255).argmax())
    return {"label": None if pixels[-1, -1] == 255 else label}


def softmax(scores: Any) -> list[float]:
    shares = np.exp(scores - scores.max())
    return [float(share) for share in shares / shares.sum()]


ADAPTERS = {
    "a net": factory("net", white_box=True),
    "a net of the hubs": factory("hub", white_box=True),
    "a net of two outputs": factory("auxiliary", white_box=True),
    "a net in float64": factory("double", white_box=True),
    "a net in DataParallel": factory("parallel", white_box=True),
    "a function of tensors": factory("tensors", white_box=True),
    "a function of arrays": factory("arrays"),
    "a MAITE model": factory("Maite"),
    "a MAITE model of a net": factory("MaiteNet", white_box=True),
    "predict_proba": factory("Estimator"),
    "predict alone": factory("Labels", gives="labels"),
    "a pipeline of scikit-learn": factory("sklearn"),
    "an ONNX file": onnx_file(white_box=True),
    "an ONNX file that ends in softmax": onnx_file(end="Softmax", white_box=True),
    "an ONNX file with channels last": onnx_file(last=True, white_box=True),
    "an ONNX file of float64": onnx_file(TensorProto.DOUBLE, white_box=True),
    "an ONNX file of bytes": onnx_file(TensorProto.UINT8),
    "an ONNX file with an unknown layer": onnx_file(end="Softsign"),
    "an app": served("", app, gives="labels", side=OWN_SIDE),
    "a server of floats": v2("FP32", [1, SIDE, SIDE]),
    "a server of bytes, channels last": v2("UINT8", [SIDE, SIDE, 1]),
    "instances": instances("/v1/models/net:predict", (SIDE, SIDE, 1), lambda s: s.tolist()),
    "instances that are told apart": instances(
        "/v1/models/net:predict", (1, SIDE, SIDE), lambda s: {"probabilities": softmax(s)}
    ),
    "invocations for labels": instances(
        "/invocations", (SIDE * SIDE,), lambda s: int(s.argmax()), gives="labels"
    ),
}
