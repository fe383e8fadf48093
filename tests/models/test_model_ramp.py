"""The input ramp: a clipping layer of a declared epsilon, in card, header, ONNX file and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from models_tiny import SHAPE
from torch import nn

from purpleteam.core.errors import ModelError, PurpleError
from purpleteam.models import Provenance, build, load, store
from purpleteam.models.adapters import NORMALISATIONS, Normalisation
from purpleteam.models.devices import frozen
from purpleteam.models.inference import Nets, logits

PROVENANCE = Provenance(
    architecture="small_cnn", shape=SHAPE, classes=("top", "middle", "bottom"), recipe={}
)
CLIPS = {
    "ramp": (Normalisation.parse("ramp=0.2").before, (0.2, 0.8)),
    "one side": (lambda net: nn.Sequential(nn.Threshold(0.3, 0.3), net), (0.3, 1.0)),
    "upside down": (lambda net: nn.Sequential(Inverted(), nn.Hardtanh(0.1, 0.7), net), (0.3, 0.9)),
}


class Inverted(nn.Module):
    """Black as white."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return 1 - x."""
        return 1 - x


def ramped() -> nn.Module:
    return Normalisation.ramp(0.3).before(build("small_cnn", SHAPE, 3, seed=0))


def test_a_ramp_clips_what_lies_beyond_epsilon() -> None:
    x = torch.tensor([0.0, 0.3, 0.4, 0.5, 0.7, 1.0]).view(1, 1, 2, 3)
    found = Normalisation.parse("ramp=0.3")(x).flatten()
    torch.testing.assert_close(found, torch.tensor([0, 0, 0.25, 0.5, 1, 1]))


@pytest.mark.parametrize("text", ["ramp=0", "ramp=0.5", "ramp=-0.1", "ramp=x", "ramp=true"])
def test_a_ramp_of_no_radius_is_one_line(text: str) -> None:
    with pytest.raises(PurpleError, match=r"above 0 and below 0\.5|no number such as 0\.3"):
        Normalisation.parse(text)


def test_a_ramped_model_comes_back_ramped_and_its_file_clips(tmp_path: Path) -> None:
    module = ramped()
    stored = store(module, tmp_path / "net", PROVENANCE)
    nodes = {node.op_type for node in onnx.load(str(stored.onnx)).graph.node}
    assert {"Sub", "Div", "Clip"} <= nodes
    images = np.random.default_rng(0).integers(0, 256, (4, *SHAPE[1:], SHAPE[0]), np.uint8)
    expected = logits(module, images)
    for kind in (stored.weights, stored.onnx):
        back = load(str(kind))
        np.testing.assert_allclose(logits(back.module, images), expected, atol=1e-4)
        assert back.normalisation == Normalisation.ramp(0.3)


def test_a_card_that_hides_the_ramp_is_refused(tmp_path: Path) -> None:
    stored = store(ramped(), tmp_path / "net", PROVENANCE)
    card = json.loads((tmp_path / "net.json").read_text())
    del card["normalisation"]["clip"]
    (tmp_path / "net.json").write_text(json.dumps(card))
    with pytest.raises(PurpleError, match="names another normalisation"):
        load(str(stored.weights))


def test_cards_without_the_flag_are_read_as_ever_and_an_odd_one_is_refused() -> None:
    old = NORMALISATIONS["mnist"]
    assert old.header() == '{"mean":[0.1307],"std":[0.3081]}'
    assert Normalisation.of_card(old.to_json(), "card") == old
    with pytest.raises(ModelError, match="the normalisation of card is none"):
        Normalisation.of_card({**old.to_json(), "clip": 1}, "card")


@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize("channels", [1, 3])
def test_where_a_first_layer_is_flat_is_found_by_its_gradients(kind: str, channels: int) -> None:
    behind, ends = CLIPS[kind]
    x = torch.rand((4, channels, 12, 12), generator=torch.Generator().manual_seed(0))
    net = behind(build("small_cnn", (channels, 12, 12), 3, seed=0)).eval()
    with frozen(net):
        found = Nets.of(net, x)
    assert found.sloped is not None and found.inward == 0
    expected = torch.tensor(ends).view(2, 1, 1, 1, 1).expand(2, 1, channels, 1, 1)
    torch.testing.assert_close(found.sloped, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["classic_cnn", "residual_cnn", "small_cnn"])
def test_an_architecture_of_ours_is_flat_at_no_end(name: str) -> None:
    net = nn.Sequential(nn.MaxPool2d(5, 1, 2), build(name, (1, 28, 28), 10, seed=0))
    x = torch.rand((4, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    for module in (net, net[1]):
        with frozen(module):
            assert Nets.of(module, x).sloped is None
