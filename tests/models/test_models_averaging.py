"""Averages, clipping, penalties, schedules: what the fields of any recipe do to its training."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from models_tiny import QUICK, SHAPE, equal_weights
from torch import Tensor, nn

from purpleteam.models import build, train
from purpleteam.models.devices import to_batch
from purpleteam.models.recipes import Recipe
from purpleteam.models.training import Validation, cross_entropy

SCHEDULED = Recipe(learning_rate=1.0)
AVERAGED = replace(QUICK, averaging="ema", average_from=0.3, average_decay=0.8)


@pytest.fixture
def fit(images, validation):
    """Return a function that trains a net from its start."""

    def run(recipe: Recipe, name: str = "small_cnn", **options):
        return train(build(name, SHAPE, 3, seed=0), images, validation, recipe, seed=0, **options)

    return run


def copies_of(seen: list[nn.Module]):
    """Return a validation that keeps a copy of each net that it is shown, and an equal score."""

    def validate(net: nn.Module) -> Validation:
        seen.append(copy.deepcopy(net).eval())
        return Validation(validation_accuracy=float(len(seen)))

    return validate


def weights_before_steps(seen: list[dict[str, Tensor]]):
    """Return an objective that keeps the weights before each step."""

    def objective(net, x, y, rng, done) -> Tensor:
        seen.append({name: value.clone() for name, value in net.model.state_dict().items()})
        return cross_entropy(net, x, y, rng, done)

    return objective


def norm_of(net: nn.Module, power: float) -> float:
    parts = [one.detach().flatten() for one in net.parameters() if one.ndim > 1]
    return float(torch.cat(parts).norm(power))


@pytest.mark.parametrize(
    "recipe",
    [
        replace(AVERAGED, epochs=3),
        replace(AVERAGED, epochs=3, precise_batch_norm=True),
        replace(QUICK, epochs=3, averaging="swa", average_from=0.3),
        replace(QUICK, epochs=3, precise_batch_norm=True, l1=1e-3, gradient_clip=0.1),
    ],
    ids=["ema", "ema, precise", "swa", "precise, l1, clip"],
)
@pytest.mark.parametrize("name", ["small_cnn", "residual_cnn"])
def test_stopped_after_any_epoch_it_goes_on_to_the_same_bytes(fit, tmp_path, recipe, name):
    whole = fit(recipe, name)
    for epochs in (1, 2):
        file = tmp_path / f"{epochs}.safetensors"
        for _ in range(epochs):
            fit(recipe, name, checkpoint=file, budget_seconds=0)
        resumed = fit(recipe, name, checkpoint=file)
        assert resumed.epochs == whole.epochs
        assert equal_weights(resumed.module, whole.module)


def test_the_exponential_mean_over_steps_is_what_is_validated(fit):
    before: list[dict[str, Tensor]] = []
    shown: list[nn.Module] = []
    plain: list[nn.Module] = []
    recipe = replace(AVERAGED, epochs=2, average_from=0.5)
    fit(recipe, objective=weights_before_steps(before), validate=copies_of(shown))
    fit(replace(recipe, averaging="none"), validate=copies_of(plain))
    assert equal_weights(shown[0], plain[0])
    mean = before[7]  # six steps an epoch: the seventh is the first of the second half
    for state in [*before[8:], plain[1].state_dict()]:
        mean = {name: 0.8 * value + 0.2 * state[name] for name, value in mean.items()}
    for name, value in shown[1].state_dict().items():
        assert torch.allclose(value, mean[name], atol=1e-6)


def test_the_mean_over_epochs_is_what_is_kept(fit):
    plain: list[nn.Module] = []
    averaged: list[nn.Module] = []
    recipe = replace(QUICK, epochs=4)
    fit(recipe, validate=copies_of(plain))
    swa = replace(recipe, averaging="swa", average_from=0.25)
    kept = fit(swa, validate=copies_of(averaged)).module
    assert equal_weights(averaged[0], plain[0])
    for name, value in kept.state_dict().items():
        mean = torch.stack([net.state_dict()[name] for net in plain[1:]]).mean(0)
        assert torch.allclose(value, mean, atol=1e-6)


@pytest.mark.parametrize("recipe", [AVERAGED, replace(QUICK, averaging="swa")], ids=["ema", "swa"])
def test_averages_leave_the_training_itself_alone(fit, recipe):
    rising = copies_of([])
    plain = fit(replace(recipe, averaging="none"), validate=rising)
    averaged = fit(recipe, validate=rising)
    assert [one.loss for one in averaged.epochs] == [one.loss for one in plain.epochs]
    assert not equal_weights(averaged.module, plain.module)


@pytest.mark.parametrize("change", [{"precise_batch_norm": True}, {"averaging": "swa"}])
def test_batch_norm_is_told_the_statistics_of_all_training_images(fit, images, change):
    net = fit(replace(QUICK, **change), "residual_cnn").module
    x = net[1](net[0](to_batch(images.images)))  # into the first batch normalisation
    norm = net[2]
    assert torch.allclose(norm.running_mean, x.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.running_var, x.var((0, 2, 3)), rtol=1e-4)
    assert norm.momentum == 0.1


def test_a_penalty_makes_the_weights_small_and_leaves_the_loss_that_is_told(fit):
    plain, penalised = fit(QUICK), fit(replace(QUICK, l1=0.01))
    assert norm_of(penalised.module, 1) < 0.8 * norm_of(plain.module, 1)
    assert penalised.epochs[0].loss < plain.epochs[0].loss + 1


def test_no_gradient_is_longer_than_the_clip(fit):
    lengths: list[float] = []

    def objective(net, x, y, rng, done) -> Tensor:
        gradients = [one.grad.flatten() for one in net.parameters() if one.grad is not None]
        lengths.extend([float(torch.cat(gradients).norm())] if gradients else [])
        return 100 * cross_entropy(net, x, y, rng, done)

    fit(replace(QUICK, epochs=1, gradient_clip=0.5), objective=objective)
    assert lengths == pytest.approx([0.5] * len(lengths), rel=1e-4) and lengths


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("cosine", [1, 0.5, 0.2061074, 0.0544967, 0.0061558]),
        ("steps", [1, 1, 0.2, 0.04, 0.04]),
    ],
)
def test_a_schedule_falls_as_it_says(schedule, rates):
    recipe = replace(SCHEDULED, schedule=schedule)
    assert [recipe.rate(done) for done in (0, 0.5, 0.7, 0.85, 0.95)] == pytest.approx(
        rates, rel=1e-4
    )


@pytest.mark.parametrize(
    ("found", "score"),
    [
        (Validation(validation_accuracy=0.9), 0.9),
        (Validation(validation_accuracy=0.9, attacked=0.5), 0.5),
        (Validation(validation_accuracy=0.9, attacked=0.5, certified=0.0), 0.0),
    ],
    ids=["clean", "attacked", "certified"],
)
def test_the_strictest_that_was_measured_chooses_the_epoch(found, score):
    assert found.score == score


def test_all_that_validation_measured_is_told_with_the_epoch(fit):
    found = Validation(validation_accuracy=0.9, attacked=0.5, certified=0.25)
    (epoch, *_) = fit(replace(QUICK, epochs=1), validate=lambda _: found).epochs
    assert (epoch.validation_accuracy, epoch.attacked, epoch.certified) == (0.9, 0.5, 0.25)


@pytest.mark.parametrize(
    "value",
    [{"l1": -1.0}, {"gradient_clip": float("inf")}, {"average_from": 1}, {"average_decay": 1}],
)
def test_a_field_out_of_its_range_is_refused(value):
    with pytest.raises(ValueError, match=next(iter(value))):
        Recipe(**value)
