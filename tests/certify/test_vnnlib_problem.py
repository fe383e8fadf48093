"""What is written for verifiers: one plain net, a property an image; and verdicts replayed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import purpleteam as pt
from purpleteam.certify.cascade import certify_ball
from purpleteam.certify.network import network_of
from purpleteam.certify.onnx_writer import write_onnx
from purpleteam.certify.vnnlib import VERSIONS, Property, box_of
from purpleteam.core.digest import sha256_file
from purpleteam.core.errors import DataError, ModelError, Refused, UsageError
from purpleteam.data.images import ImageSet
from purpleteam.models.black_box import session_of
from purpleteam.verbs.export import Exported

RNG = np.random.default_rng(0)
IMAGES = ImageSet(RNG.integers(0, 256, (6, 8, 8, 3), np.uint8), np.array([0, 1, 2, 0, 1, 2]))
X = torch.from_numpy(IMAGES.images.copy()).permute(0, 3, 1, 2).float() / 255
EPSILON = 2 / 255


class Net(nn.Module):
    """Has all that must be gone: a normalisation, norms before and after layers, a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(4)
        self.convolution, self.linear = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(64, 3)
        self.last = nn.BatchNorm1d(3)
        for norm in (self.first, self.second, self.last):
            for values in (norm.running_var, norm.weight.data):
                values.uniform_(0.5, 2)
            for values in (norm.running_mean, norm.bias.data):
                values.uniform_(-1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first((x - 0.5) / 0.25)
        x = self.convolution(x)
        x = x + torch.relu(self.second(x))
        x = nn.functional.avg_pool2d(x, 2).flatten(1)
        return self.last(self.linear(x)).softmax(1)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().eval()


@pytest.fixture(scope="module")
def folder(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vnnlib") / "new"
    written = pt.export(net, IMAGES, vnnlib=folder, epsilon=EPSILON, limit=4)
    assert written.properties == 4 and written.onnx_difference < 1e-5
    return folder


def scores_of(content: bytes, x: np.ndarray) -> np.ndarray:
    session = session_of("net", content)
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def test_the_net_is_plain_and_answers_as_before(net: nn.Module, folder: Path) -> None:
    model = onnx.load(folder / "net.onnx")
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 17)]
    kinds = {node.op_type for node in model.graph.node}
    assert kinds <= {"Mul", "Add", "Conv", "Relu", "AveragePool", "Reshape", "Gemm"}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    for one in X:
        scores = scores_of((folder / "net.onnx").read_bytes(), one[None].numpy())
        expected = net(one[None]).detach()
        assert torch.allclose(torch.from_numpy(scores).softmax(1), expected, atol=1e-5)


def test_the_manifest_and_the_instances_name_each_file(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    written = {str(one.relative_to(folder)) for one in folder.rglob("*.*") if one.is_file()}
    assert manifest["files"].keys() == written - {"manifest.json"}
    assert all(sha256_file(folder / name) == told for name, told in manifest["files"].items())
    assert (manifest["epsilon"], manifest["labels"]) == (EPSILON, [0, 1, 2, 0])
    for version in VERSIONS:
        rows = (folder / version / "instances.csv").read_text().splitlines()
        assert rows == [f"../net.onnx,{i:05d}.vnnlib,60" for i in range(4)]


@pytest.mark.parametrize("version", VERSIONS)
def test_each_property_is_the_ball_of_its_image(folder: Path, version: str) -> None:
    for i in range(4):
        found = Property.read((folder / version / f"{i:05d}.vnnlib").read_text())
        middle = (found.lower.astype(float) + found.upper).reshape(X[i].shape) / 2
        assert np.abs(middle - X[i].numpy()).max() <= EPSILON / 2 + 1e-6
        assert (found.label, found.classes) == (IMAGES.labels[i], 3)


PAIRS = ImageSet(np.array([[[[128], [102]]], [[[0], [255]]]], np.uint8), np.array([0, 1]))
"""Two pixels, (0.502, 0.4) and (0, 1); `pair_net` scores each class by its pixel."""


def pair_net(path: Path, *, kind: int = TensorProto.FLOAT, head: str = "Identity") -> Path:
    shape, weight = ["n", 1, 1, 2], np.eye(2, dtype=np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["product"]),
        helper.make_node(head, ["product"], ["scores"]),
    ]
    ends = [helper.make_tensor_value_info("image", kind, shape)]
    scores = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])]
    weights = [numpy_helper.from_array(weight, "weight")]
    graph = helper.make_graph(nodes, "pair", ends, scores, weights)
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    path = pair_net(tmp_path / "pair.onnx")
    pt.export(str(path), PAIRS, vnnlib=tmp_path / "new", epsilon=0.1)
    return tmp_path / "new"


def answered(folder: Path, text: str) -> Exported:
    (folder / "00000.txt").write_text(text)
    return pt.export(vnnlib=folder, verdicts=folder)


@pytest.mark.parametrize(
    ("witness", "why"),
    [
        ("(X_0 0.45) (X_1 0.46)", None),
        ("(X_0 0.45) (X_1 0.45)", None),
        ("(X_0 0.45) (X_1 0.44)", "ONNX Runtime scores the label 0 highest"),
        ("(X_0 0.45) (X_1 0.51)", "X_1 = 0.50999999 is outside the box, 0."),
        ("(X_0 0.4) (X_1 0.46)", "X_0 = 0.400000006 is outside the box, 0.401960"),
        ("(X_0 nan) (X_1 0.46)", "X_0 = nan is outside the box"),
        ("(X_0 0.45)", "the witness has 1 of 2 inputs"),
        ("", "the witness has 0 of 2 inputs"),
    ],
    ids=["wrong", "a tie", "right", "too high", "too low", "no number", "too short", "none"],
)
def test_a_witness_is_believed_only_where_it_is_one(pair: Path, witness: str, why: Any) -> None:
    found = answered(pair, f"sat\n({witness})\n")
    told = found.false_witnesses.get("00000")
    assert found.exit_code == (why is not None)
    assert told is None if why is None else told.startswith(why)


def test_our_own_counterexamples_lie_in_the_box() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 8, 8, 1), np.uint8)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False)).requires_grad_(False)
    nn.init.uniform_(net[1].weight, -1, 1, torch.Generator().manual_seed(0))
    x = torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2) / np.float32(255)
    images = ImageSet(pixels, net(x).argmax(1).numpy())
    found = certify_ball(net, images, epsilon=0.05)
    assert found.counts["falsified"] >= 5
    for row, x_adv in found.counterexamples.items():
        lower, upper = box_of(x[row].numpy(), 0.05)
        assert ((lower <= x_adv) & (x_adv <= upper)).all()
        assert net(torch.from_numpy(x_adv[None])).argmax() != images.labels[row]


def test_verdicts_are_counted_and_missing_ones_told(pair: Path) -> None:
    found = answered(pair, "unsat\n")
    assert found.verdicts == {"unsat": 1, "missing": 1} and found.exit_code == 0
    with pytest.raises(DataError, match=r"00000.txt' cannot be read: unknown verdict 'safe'"):
        answered(pair, "safe")


def test_a_changed_net_or_property_is_refused(pair: Path) -> None:
    for name in ("net.onnx", "2.0/00001.vnnlib"):
        kept = (pair / name).read_bytes()
        (pair / name).write_bytes(kept + b"\n")
        with pytest.raises(Refused, match="is not the file of its manifest"):
            answered(pair, "unsat")
        (pair / name).write_bytes(kept)
    with pytest.raises(DataError, match=r"manifest.json' cannot be read"):
        pt.export(vnnlib=pair / "2.0", verdicts=pair)


@pytest.mark.parametrize(
    ("layer", "scores"), [("mean=0.5,std=-0.25", [0, -1]), ("ramp=0.3", [0.5, 1.0])]
)
def test_a_file_gets_its_normalisation_inside(tmp_path: Path, layer: str, scores: Any) -> None:
    path = pair_net(tmp_path / "pair.onnx", head="LogSoftmax")
    pt.export(str(path), PAIRS, vnnlib=tmp_path / "new", epsilon=0.1, normalise=layer)
    content, x = (tmp_path / "new" / "net.onnx").read_bytes(), [[[[0.5, 0.75]]]]
    assert np.allclose(scores_of(content, np.array(x, np.float32)), [scores])


def test_outputs_in_another_order_are_put_into_that_of_the_labels(tmp_path: Path) -> None:
    path = pair_net(tmp_path / "pair.onnx")
    pt.export(str(path), PAIRS, vnnlib=tmp_path / "new", epsilon=0.1, classes="1,0")
    content, x = (tmp_path / "new" / "net.onnx").read_bytes(), [[[[0.5, 0.75]]]]
    assert scores_of(content, np.array(x, np.float32)).tolist() == [[0.75, 0.5]]


class Moody(nn.Module):
    """Answers otherwise where its graph is read."""

    def forward(self, x: Tensor) -> Tensor:
        shift = 1e-4 if torch.compiler.is_exporting() else 0.0
        return x.flatten(1) + torch.tensor([shift, 0.0])


@pytest.mark.parametrize(
    ("call", "error", "why"),
    [
        ({"model": Moody()}, ModelError, "the model and its ONNX disagree by"),
        (
            {"model": lambda x: torch.from_numpy(x.numpy().reshape(len(x), 2))},
            ModelError,
            "the model only answers",
        ),
        ({"epsilon": None}, UsageError, "--vnnlib needs --epsilon, such as 0.1 or 2/255"),
        ({"vnnlib": None, "verdicts": "x"}, UsageError, "--verdicts goes with --vnnlib"),
        ({"verdicts": "none"}, UsageError, "--verdicts 'none' is no folder"),
        ({"vnnlib": "."}, UsageError, "'.' is not empty: name a new folder"),
        ({"kind": TensorProto.UINT8}, ModelError, "takes bytes"),
    ],
    ids=[
        "disagrees",
        "a function",
        "no radius",
        "no folder",
        "no verdicts",
        "a full folder",
        "bytes",
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: dict[str, Any], error: Any, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    kind = call.pop("kind", TensorProto.FLOAT)
    path = pair_net(tmp_path / "pair.onnx", kind=kind)
    asked = {"model": str(path), "images": PAIRS, "vnnlib": "new", "epsilon": 0.1} | call
    with pytest.raises(error, match=why):
        pt.export(**asked)


LAYERS = {
    "grouped": nn.Conv2d(4, 8, 3, stride=2, padding=(1, 0), dilation=(1, 2), groups=2, bias=False),
    "pooled by the largest": nn.MaxPool2d(3, 2, padding=1),
    "pooled beyond the edge": nn.MaxPool2d(3, (2, 1), ceil_mode=True),
    "pooled by the mean": nn.AvgPool2d(2, padding=1, count_include_pad=False),
    "leaky": nn.LeakyReLU(0.1),
    "parametric": nn.PReLU(4, 0.3),
    "clipped": nn.ReLU6(),
    "clipped on one side": nn.Sequential(nn.Hardtanh(-1e30, 0.5), nn.Hardtanh(-0.5, 1e30)),
    "a norm alone": nn.BatchNorm2d(4),
    "adaptive": nn.AdaptiveAvgPool2d(1),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_each_layer_is_written_as_it_computes(kind: str) -> None:
    net = nn.Sequential(LAYERS[kind].eval(), nn.Flatten()).requires_grad_(False)
    x = 3 * torch.randn(1, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    found = scores_of(write_onnx(network_of(net, x.shape[1:])), x.numpy())
    assert np.allclose(found, net(x).numpy(), atol=1e-5)


def test_sums_stacks_and_turns_are_written() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, x + 2 * x.permute(0, 1, 3, 2)], 1).flatten(1)

    x = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = scores_of(write_onnx(network_of(Odd(), x.shape[1:])), x.numpy())
    assert np.allclose(found, Odd()(x).numpy(), atol=1e-5)
