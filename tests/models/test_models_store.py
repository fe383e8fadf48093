"""Stored models: what goes in comes out, and nothing else is taken."""

from __future__ import annotations

import getpass
import json
import platform
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from models_tiny import SHAPE, Says, equal_weights
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from purpleteam.core.cards import StoredModel, find_stored
from purpleteam.core.digest import sha256_file
from purpleteam.core.errors import ModelError, UsageError
from purpleteam.core.machine import versions
from purpleteam.models import Provenance, build, load, store
from purpleteam.models.weights import plain_weights, put_weights

PROVENANCE = Provenance(
    architecture="small_cnn", shape=SHAPE, classes=("top", "middle", "bottom"), recipe={}
)


def small() -> nn.Module:
    return build("small_cnn", SHAPE, 3, seed=0)


def load_weights(net: nn.Module, path: Path) -> None:
    put_weights(net, plain_weights(path).tensors, str(path))


def answers(net: nn.Module) -> Tensor:
    x = torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return net.eval()(x)


def test_a_model_comes_back_with_the_same_weights_and_logits(kept):
    net = build("small_cnn", SHAPE, 3, seed=5)
    back = load(str(kept.weights)).module
    assert equal_weights(back, net)
    assert torch.allclose(answers(back), answers(net), atol=1e-6)


def test_a_net_of_known_layers_is_written_as_if_it_were_the_first(tmp_path, monkeypatch):
    store(small(), tmp_path / "first", PROVENANCE)
    other = store(build("small_cnn", SHAPE, 3, seed=7), tmp_path / "other", PROVENANCE).onnx
    monkeypatch.setattr(sys.modules["purpleteam.models.store"], "_GRAPHS", {})
    alone = store(build("small_cnn", SHAPE, 3, seed=7), tmp_path / "alone", PROVENANCE).onnx
    assert other.read_bytes() == alone.read_bytes()


def test_a_net_of_known_layers_that_computes_something_else_is_traced_anew(tmp_path):
    store(small(), tmp_path / "first", PROVENANCE)
    net = small()
    net[-1].register_forward_hook(lambda *call: 2 * call[-1])
    stored = store(net, tmp_path / "doubled", PROVENANCE)
    assert stored.card.onnx_difference < 1e-4
    assert b"Mul" in stored.onnx.read_bytes()


def test_the_card_says_everything_that_is_known(kept):
    card = kept.card
    assert find_stored(str(kept.stem)).card == card
    assert card.name == kept.stem.name == "small-0.3"
    assert (card.digest, card.onnx_digest) == (sha256_file(kept.weights), sha256_file(kept.onnx))
    assert card.input == {"channels": 1, "height": 12, "width": 12, "range": [0, 1]}
    assert (card.architecture, card.classes) == ("small_cnn", ("top", "middle", "bottom"))
    assert (card.recipe, card.data_digest) == ({"epochs": 0, "seed": 5}, "sha256:data")
    assert (card.validation_accuracy, card.versions) == (0.25, versions())
    assert 0 <= card.onnx_difference < 1e-4


def test_a_model_is_three_files_and_no_more(kept):
    names = {path.name for path in kept.stem.parent.iterdir()}
    assert names == {f"small-0.3{ending}" for ending in (".safetensors", ".onnx", ".json")}


def test_the_same_weights_make_the_same_files_wherever_they_are_put(kept, tmp_path):
    net = build("small_cnn", SHAPE, 3, seed=5)
    again = store(net, tmp_path / "new" / "robust-0.3.onnx", PROVENANCE)
    assert again.stem == tmp_path / "new" / "robust-0.3"
    assert find_stored(str(again.stem)) == again
    assert again.card.digest == kept.card.digest
    assert again.card.onnx_digest == kept.card.onnx_digest


def test_the_onnx_file_takes_any_number_of_images(kept):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(kept.onnx.read_bytes(), providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["images"]
    assert [one.name for one in session.get_outputs()] == ["logits"]
    for n in (1, 2, 5):
        x = np.zeros((n, *SHAPE), np.float32)
        assert session.run(None, {"images": x})[0].shape == (n, 3)


def test_no_file_names_the_machine_it_was_made_on(kept):
    secrets = {str(Path.cwd()), str(Path(torch.__file__).parent), platform.node(), "site-packages"}
    secrets |= {".py", f"/{getpass.getuser()}/"}
    for path in kept.stem.parent.iterdir():
        content = path.read_bytes()
        assert not [one for one in secrets if one.encode() in content], path.name


def test_the_onnx_file_is_whole_and_keeps_nothing_outside(kept):
    net = onnx.load(kept.onnx)
    onnx.checker.check_model(net)
    assert not any(tensor.external_data for tensor in net.graph.initializer)


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"):
        store(small(), tmp_path / "file" / "net", PROVENANCE)


class Tied(nn.Module):
    """Two layers with one weight between them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(144, 144), nn.Linear(144, 144)
        self.last = nn.Linear(144, 3)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.two(self.one(x.flatten(1)).relu()))


def test_tied_weights_are_stored_and_stay_tied(tmp_path):
    with torch.random.fork_rng(devices=[]):
        net, other = Tied(), Tied()
    stored = store(net, tmp_path / "tied", replace(PROVENANCE, architecture="models_tiny:Tied"))
    load_weights(other, stored.weights)
    assert equal_weights(net, other)
    assert other.two.weight is other.one.weight


class Column(Says):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :1]


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] if float(x.sum()) > 1 else -x.flatten(1)[:, :3]


class Random(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.rand_like(x.flatten(1)[:, :3])


class Counts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), -1)[:, :3]


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Says(), "scores 144 classes, not 3"),
        (Column(), r"returned \(\d+, 1\), not logits"),
        (build("small_cnn", (3, 12, 12), 3, seed=0), "does not take images of shape"),
        (Branches(), "cannot be exported to ONNX"),
        (Random(), "disagree by"),
        (Counts(), r"does it ask for len\(x\)\? take x\.shape\[0\]"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_net_that_cannot_be_served_as_it_is_gets_no_card(tmp_path, net, message):
    with torch.random.fork_rng(devices=[]), pytest.raises(ModelError, match=message) as error:
        store(net, tmp_path / "net", PROVENANCE)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "net.json").exists()


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.bin", "net"])
def test_weights_of_another_format_are_told_how_to_be_imported(tmp_path, name):
    path = tmp_path / name
    torch.save(small().state_dict(), path)
    with pytest.raises(ModelError, match=r"not \.safetensors; make them so with: purple import"):
        load_weights(small(), path)


@pytest.mark.parametrize("content", [b"", b"x" * 7, b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}more"])
def test_unreadable_weights_are_a_clear_error(tmp_path, content):
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"net\.safetensors' (cannot be read|do not fit): "):
        load_weights(small(), path)


def test_weights_that_are_a_folder_or_not_there_are_a_clear_error(tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("folder", "missing"):
        with pytest.raises(ModelError, match="cannot be read"):
            load_weights(small(), tmp_path / f"{name}.safetensors")


def test_everything_that_does_not_fit_is_named():
    tensors = small().state_dict()
    names = [name for name in tensors if name.endswith("weight")]
    del tensors[names[0]]
    tensors["extra"] = torch.zeros(1)
    tensors[names[1]] = torch.zeros(2, 2)
    tensors[names[2]] = torch.full_like(tensors[names[2]], float("nan"))
    with pytest.raises(ModelError) as error:
        put_weights(small(), tensors, "net")
    shape = tuple(small().state_dict()[names[1]].shape)
    for part in (
        f"missing '{names[0]}'",
        "left over 'extra'",
        f"'{names[1]}' has shape (2, 2), not {shape}",
        f"'{names[2]}' holds NaN or infinity",
    ):
        assert part in str(error.value)


def test_a_long_list_of_problems_is_cut_and_counted():
    with pytest.raises(ModelError, match=r"missing .* and 6 more$"):
        put_weights(small(), {}, "net")


def test_weights_that_do_not_fit_change_nothing():
    net, tensors = small(), build("small_cnn", SHAPE, 3, seed=1).state_dict()
    last = list(tensors)[-1]
    tensors[last] = tensors[last] * float("inf")
    with pytest.raises(ModelError, match="NaN or infinity"):
        put_weights(net, tensors, "net")
    assert equal_weights(net, small())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(own: StoredModel, kind):
    save_file({name: value.to(kind) for name, value in load_file(own.weights).items()}, own.weights)
    net = small()
    load_weights(net, own.weights)
    assert {value.dtype for value in net.state_dict().values()} == {torch.float32}


def test_the_card_is_json_that_a_person_can_read(kept):
    text = kept.stem.with_name("small-0.3.json").read_text()
    assert json.loads(text)["recipe"]["seed"] == 5
    assert text.count("\n") > 20
