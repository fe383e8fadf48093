"""Training: a function of its seed, and the same bytes wherever it was killed."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import torch
from models_tiny import QUICK, SHAPE, equal_weights
from torch import Tensor, nn

from purpleteam.core.errors import ModelError, UsageError
from purpleteam.models import ARCHITECTURES, Training, build, train
from purpleteam.models.recipes import Plain
from purpleteam.models.training import Validation, cross_entropy


@dataclass(frozen=True, kw_only=True)
class KeepsLast(Plain):
    keep: ClassVar[Literal["best", "last"]] = "last"


class Killed(Exception):
    pass


def stop_after(steps: int):
    """Return an objective that kills its training before the step of that number."""
    seen = 0

    def objective(net, x, y, rng, done) -> Tensor:
        nonlocal seen
        if seen == steps:
            raise Killed
        seen += 1
        return cross_entropy(net, x, y, rng, done)

    return objective


@pytest.fixture
def fit(images, validation):
    """Return a function that trains a net from its start."""

    def run(name: str = "small_cnn", recipe=QUICK, *, seed: int = 0, **options) -> Training:
        net = build(name, SHAPE, 3, seed=seed).eval()  # as a loaded model is
        return train(net, images, validation, recipe, seed=seed, **options)

    return run


def test_a_training_learns(fit):
    made = fit(recipe=replace(QUICK, epochs=8))
    assert made.best.validation_accuracy > 0.9
    assert made.epochs[-1].loss < made.epochs[0].loss
    assert made.seconds > 0
    assert not made.module.training


@pytest.mark.parametrize("augmentation", ["none", "shift", "freehand"])
def test_the_same_seed_gives_the_same_bytes(fit, augmentation):
    recipe = replace(QUICK, epochs=2, augmentation=augmentation)
    one, same, other = (fit(recipe=recipe, seed=seed) for seed in (3, 3, 4))
    assert one.epochs == same.epochs != other.epochs
    assert equal_weights(one.module, same.module)
    assert not equal_weights(one.module, other.module)


def test_dropout_is_seeded_too(images, validation):
    def fit() -> Training:
        body = build("small_cnn", SHAPE, 3, seed=0)
        return train(nn.Sequential(nn.Dropout(0.3), body), images, validation, QUICK, seed=0)

    one = fit()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        assert equal_weights(one.module, fit().module)


def test_the_global_random_numbers_are_left_alone(fit):
    before = torch.get_rng_state()
    fit(recipe=replace(QUICK, epochs=1, augmentation="freehand"))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_killed_training_goes_on_to_the_same_bytes(fit, tmp_path, name):
    recipe = replace(QUICK, epochs=3)
    undisturbed = fit(name, recipe)
    for steps in (0, 3, 6, 17):  # 6 steps an epoch
        checkpoint = tmp_path / f"{steps}.safetensors"
        with pytest.raises(Killed):
            fit(name, recipe, checkpoint=checkpoint, objective=stop_after(steps))
        assert checkpoint.exists() == (steps >= 6)
        resumed = fit(name, recipe, checkpoint=checkpoint)
        assert resumed.epochs == undisturbed.epochs
        assert equal_weights(resumed.module, undisturbed.module)


def test_a_finished_training_is_not_done_again(fit, tmp_path):
    checkpoint = tmp_path / "c.safetensors"
    first = fit(checkpoint=checkpoint)
    again = fit(checkpoint=checkpoint, objective=stop_after(0))
    assert again.epochs == first.epochs
    assert equal_weights(again.module, first.module)


def test_the_best_epoch_is_kept_and_of_equals_the_earliest(fit):
    states: list[dict[str, Tensor]] = []
    scores = iter([0.2, 0.7, 0.7, 0.1])

    def validate(module: nn.Module) -> Validation:
        states.append({name: value.clone() for name, value in module.state_dict().items()})
        return Validation(validation_accuracy=next(scores))

    made = fit(validate=validate)
    assert [one.validation_accuracy for one in made.epochs] == [0.2, 0.7, 0.7, 0.1]
    assert made.best.epoch == 2
    kept = made.module.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in states[1].items())


@pytest.mark.parametrize("score", [float("nan"), float("-inf"), -3.0])
def test_some_epoch_is_kept_whatever_the_scores(fit, score):
    found = Validation(validation_accuracy=score)
    made = fit(recipe=replace(QUICK, epochs=2), validate=lambda _: found)
    assert len(made.epochs) == 2


def test_an_objective_sees_each_batch_with_its_labels_and_how_far_the_training_is(fit, images):
    seen: list[tuple[int, float]] = []

    def objective(net, x, y, rng, done) -> Tensor:
        assert x.shape[1:] == SHAPE
        assert net.model.training
        assert 0 <= x.min() and x.max() <= 1
        bars = x.unflatten(2, (3, 4)).mean((1, 3, 4)).argmax(1)
        assert torch.equal(bars, y)
        seen.append((len(x), done))
        return cross_entropy(net, x, y, rng, done)

    fit(recipe=replace(QUICK, epochs=2, augmentation="none"), objective=objective)
    assert [n for n, _ in seen] == [16, 16, 16, 16, 16, 10] * 2
    assert [done for _, done in seen] == [step / 12 for step in range(12)]


def test_each_epoch_sees_every_image_once_in_an_order_of_its_own(fit, images):
    seen: list[Tensor] = []

    def objective(net, x, y, rng, done) -> Tensor:
        seen.extend((255 * x).round().to(torch.uint8).permute(0, 2, 3, 1))
        return cross_entropy(net, x, y, rng, done)

    fit(recipe=replace(QUICK, epochs=2, augmentation="none"), objective=objective)
    places = {image.tobytes(): place for place, image in enumerate(images.images)}
    orders = [places[image.numpy().tobytes()] for image in seen]
    first, second = orders[: len(images)], orders[len(images) :]
    assert sorted(first) == sorted(second) == list(range(len(images)))
    assert first != second
    assert first != sorted(first)


def test_an_objective_decides_what_is_learned(fit):
    def next_label(net, x, y, rng, done) -> Tensor:
        return cross_entropy(net, x, (y + 1) % 3, rng, done)

    made = fit(recipe=replace(QUICK, epochs=8), objective=next_label)
    assert made.epochs[-1].validation_accuracy < 0.1


def test_a_budget_ends_the_training_after_an_epoch(fit):
    made = fit(recipe=replace(QUICK, epochs=1000), budget_seconds=0.0)
    assert len(made.epochs) == 1


def test_a_training_that_blows_up_is_a_clear_error(fit):
    with pytest.raises(ModelError, match="NaN or infinite"):
        fit(recipe=replace(QUICK, learning_rate=1e30, schedule="constant"))


def test_an_unknown_augmentation_gives_the_nearest(fit):
    with pytest.raises(UsageError, match=r"unknown augmentation 'shiftt' .*'shift'"):
        fit(recipe=replace(QUICK, augmentation="shiftt"))


def test_progress_hears_of_every_step_also_after_a_resume(fit, tmp_path):
    from contextlib import contextmanager

    class Bar:
        def __init__(self) -> None:
            self.at, self.total, self.facts = 0.0, 0.0, []

        @contextmanager
        def task(self, description: str, total: float):
            assert description == "train"
            self.total = total
            yield self

        def advance(self, steps: float = 1, **facts: object) -> None:
            self.at += steps
            self.facts += [facts] if facts else []

    checkpoint: Path = tmp_path / "c.safetensors"
    with pytest.raises(Killed):
        fit(checkpoint=checkpoint, objective=stop_after(8))
    bar = Bar()
    fit(checkpoint=checkpoint, progress=bar)
    assert bar.at == bar.total == 24
    assert [set(one) for one in bar.facts] == [{"validation"}] * 3


@pytest.mark.parametrize(("recipe", "epoch"), [(Plain(epochs=2), 1), (KeepsLast(epochs=2), 2)])
def test_the_epoch_that_the_recipe_names_is_kept(fit, recipe, epoch):
    seen = []

    def falling(net: nn.Module) -> Validation:
        seen.append(copy.deepcopy(net).eval())
        return Validation(validation_accuracy=1 / len(seen))

    made = fit(recipe=recipe, validate=falling)
    assert made.best.epoch == epoch
    assert equal_weights(made.module, seen[epoch - 1])
    assert not equal_weights(*seen)
