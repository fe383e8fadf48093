"""What `torch.export` makes: a fixed graph without modes, asked and attacked as any other net."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from models_tiny import SHAPE, bars, equal_weights
from torch import Tensor, nn

from purpleteam.attacks import PGD
from purpleteam.attacks import evaluate as evaluate_robust
from purpleteam.core.errors import ModelError, PurpleError, UsageError
from purpleteam.defences.detection.model import scan_model
from purpleteam.models import evaluate, load
from purpleteam.models.adapters import NORMALISATIONS
from purpleteam.models.devices import frozen
from purpleteam.models.fit import examine

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own, in a deepcopy
IMAGES = bars(30)
ATTACK = PGD(epsilon=0.1, steps=4)


def net(*more: nn.Module) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = (nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), *more)
        return nn.Sequential(*parts, nn.Flatten(), nn.Linear(4 * 144, 3)).eval()


def exported(model: nn.Module, batch: int | None = None) -> torch.export.ExportedProgram:
    dynamic = ({0: torch.export.Dim("n")},) if batch is None else None
    return torch.export.export(model, (torch.zeros(batch or 2, *SHAPE),), dynamic_shapes=dynamic)


def test_a_graph_is_evaluated_and_attacked_as_the_net_that_it_was() -> None:
    graph, own = exported(net(nn.Dropout())).module(), net(nn.Dropout())
    before = copy.deepcopy(own)
    assert np.array_equal(*(evaluate(one, IMAGES, classes=3).correct for one in (graph, own)))
    assert np.array_equal(*(evaluate_robust(one, IMAGES, ATTACK).robust for one in (graph, own)))
    assert examine(graph, IMAGES) == examine(own, IMAGES)
    behind = [NORMALISATIONS["signed"].before(one) for one in (graph, own)]
    assert np.array_equal(*(evaluate(one, IMAGES, classes=3).correct for one in behind))
    assert equal_weights(before, own)
    assert {name for name, one in graph.named_parameters() if one.requires_grad}


def test_a_graph_of_train_mode_keeps_its_statistics() -> None:
    graph = exported(net().train()).module()
    kept = {name: one.clone() for name, one in graph.named_buffers()}
    with frozen(graph) as asked:
        asked(torch.full((8, *SHAPE), 0.5))
    assert all(torch.equal(one, kept[name]) for name, one in graph.named_buffers())


def test_a_graph_is_scanned() -> None:
    graph = exported(net()).module()
    assert scan_model(graph, bars(12), classes=3).verdict == "not_established"


def test_what_was_exported_is_told_to_be_taken_out_of_its_program() -> None:
    program = exported(net())
    asks: list[Callable[[], object]] = [
        lambda: evaluate(program, IMAGES, classes=3),
        lambda: evaluate_robust(program, IMAGES, ATTACK),
        lambda: ATTACK(program, torch.full((2, *SHAPE), 0.5), torch.zeros(2).long()),
        lambda: scan_model(program, IMAGES, classes=3),  # type: ignore[arg-type]
    ]
    for ask in asks:
        with pytest.raises(UsageError, match=r"model is a ExportedProgram: give its .module\(\)"):
            ask()


@pytest.mark.parametrize("batch", [1, 4])
def test_a_batch_that_is_fixed_in_the_graph_is_told_with_the_remedy(batch: int) -> None:
    graph = exported(net(), batch).module()
    for ask in (
        lambda: evaluate(graph, IMAGES, classes=3),
        lambda: evaluate_robust(graph, IMAGES, ATTACK),
        lambda: examine(graph, IMAGES),
    ):
        with pytest.raises(ModelError) as error:
            ask()
        told = f"its graph was exported for {batch} at once: export it for any number, torch.export"
        assert told in str(error.value) and "\n" not in str(error.value)


def test_images_of_another_size_than_the_graph_was_exported_for_are_told() -> None:
    with pytest.raises(PurpleError, match=r"graph was exported for images of shape \(1, 12, 12\)"):
        ATTACK(exported(net()).module(), torch.full((2, 1, 8, 8), 0.5), torch.zeros(2).long())


def test_a_factory_may_return_a_graph_and_is_told_of_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = """
import torch
from torch import nn

def program():
    net = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    with torch.no_grad():
        net[1].weight.copy_(torch.linspace(-1, 1, 432).view(3, 144)); net[1].bias.zero_()
    x, n = torch.zeros(2, 1, 12, 12), torch.export.Dim("n")
    return torch.export.export(net.eval(), (x,), dynamic_shapes=({0: n},))

def graph():
    return program().module()
"""
    Path("shelf.py").write_text(code, "utf-8")
    assert evaluate(load("shelf.py:graph", shape=SHAPE).module, IMAGES, classes=3)
    with pytest.raises(ModelError, match=r"returned ExportedProgram, .*: return its .module\(\)"):
        load("shelf.py:program")


class Modeless(nn.Module):
    """Somebody's own net without modes."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout()

    def train(self, mode: bool = True) -> Modeless:
        raise NotImplementedError("no modes here")

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x.flatten(1)[:, :3])


def test_within_a_net_that_has_no_modes_the_layers_are_switched_and_put_back() -> None:
    model = Modeless()
    with frozen(model):
        assert not model.dropout.training
    assert model.dropout.training
