"""What every defence by training promises: a net in eval mode, the same each time, resumable."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from purpleteam.core.config import build as build_part
from purpleteam.core.errors import ConfigError
from purpleteam.data.images import Dataset
from purpleteam.data.sources.digits import load_digits
from purpleteam.defences import DEFENCES, BallDefence, Hardening
from purpleteam.models import Training, build
from purpleteam.models.adapters import Normalisation, Normalised

pytestmark = pytest.mark.parametrize("name", list(DEFENCES))


@pytest.fixture(scope="module")
def few() -> Dataset:
    digits = load_digits()
    return dataclasses.replace(
        digits, train=digits.train.first(96), validation=digits.validation.first(20)
    )


def net(seed: int) -> nn.Module:
    return build("small_cnn", (1, 28, 28), 10, seed=seed)


def harden(
    name: str,
    data: Dataset,
    *,
    seed: int = 0,
    epochs: int = 1,
    ramp: bool = False,
    checkpoint: Path | None = None,
    budget_seconds: float | None = None,
) -> Training:
    work = Hardening(
        net=net(1),
        dataset=data,
        baseline=net(2),
        seed=seed,
        checkpoint=checkpoint,
        budget_seconds=budget_seconds,
    )
    values = {"epochs": epochs, "epsilon": 0.1} | ({"ramp": True} if ramp else {})
    return build_part(DEFENCES[name], values, name).harden(work)


def weights(training: Training) -> Tensor:
    return torch.cat([value.flatten() for value in training.module.state_dict().values()])


def test_it_returns_a_trained_net_in_eval_mode(name: str, few: Dataset) -> None:
    found = harden(name, few)
    assert not any(module.training for module in found.module.modules())
    assert all(parameter.requires_grad for parameter in found.module.parameters())
    start = torch.cat([value.flatten() for value in net(1).state_dict().values()])
    assert torch.isfinite(weights(found)).all() and not torch.equal(weights(found), start)


def test_behind_a_ramp_it_returns_the_net_in_its_ramp(name: str, few: Dataset) -> None:
    if not issubclass(DEFENCES[name], BallDefence):
        pytest.skip("it trains for no ball")
    found = harden(name, few, ramp=True).module
    assert isinstance(found, Normalised) and found.normalisation == Normalisation.ramp(0.1)
    start = torch.cat([value.flatten() for value in net(1).state_dict().values()])
    end = torch.cat([value.flatten() for value in found.module.state_dict().values()])
    assert torch.isfinite(end).all() and not torch.equal(start, end)


def test_it_trains_where_the_processor_is_faster_in_bfloat16(name: str, few: Dataset) -> None:
    with torch.autocast("cpu", torch.bfloat16):  # what `fast` does there
        found = harden(name, few)
    start = torch.cat([value.flatten() for value in net(1).state_dict().values()])
    assert torch.isfinite(weights(found)).all() and not torch.equal(weights(found), start)


def test_each_epoch_is_told_with_loss_and_validation(name: str, few: Dataset) -> None:
    found = harden(name, few, epochs=2)
    assert [one.epoch for one in found.epochs] == [1, 2]
    assert all(0 < one.loss < 10 and 0 <= one.validation_accuracy <= 1 for one in found.epochs)


def test_it_is_a_pure_function_of_the_seed(name: str, few: Dataset) -> None:
    first, again, other = (weights(harden(name, few, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_stopped_and_continued_it_ends_with_the_same_net(
    name: str, few: Dataset, tmp_path: Path
) -> None:
    file = tmp_path / "checkpoint.safetensors"
    stopped = harden(name, few, epochs=2, checkpoint=file, budget_seconds=0)
    assert len(stopped.epochs) == 1 and file.exists()
    continued = harden(name, few, epochs=2, checkpoint=file)
    whole = harden(name, few, epochs=2)
    assert continued.epochs == whole.epochs
    assert torch.equal(weights(continued), weights(whole))


def test_the_baseline_is_left_as_it_was(name: str, few: Dataset) -> None:
    baseline = net(2).train()
    before = {key: value.clone() for key, value in baseline.state_dict().items()}
    work = Hardening(net=net(1), dataset=few, baseline=baseline)
    build_part(DEFENCES[name], {"epochs": 1}, name).harden(work)
    assert baseline.training
    assert all(torch.equal(before[key], value) for key, value in baseline.state_dict().items())
    assert all(one.grad is None and one.requires_grad for one in baseline.parameters())


def test_the_test_split_takes_no_part(name: str, few: Dataset) -> None:
    other = dataclasses.replace(few, test=few.train.first(10))
    first, second = harden(name, few), harden(name, other)
    assert first.epochs == second.epochs and torch.equal(weights(first), weights(second))


def test_what_makes_no_sense_is_refused_in_one_line(name: str) -> None:
    assert DEFENCES[name]().name == name
    wide = [{"epsilon": 1.5}] if issubclass(DEFENCES[name], BallDefence) else []
    for values in ({"epsilom": 0.1}, {"epsilon": 0}, {"epochs": 0}, *wide):
        with pytest.raises(ConfigError) as caught:
            build_part(DEFENCES[name], values, name)
        assert "\n" not in str(caught.value)
