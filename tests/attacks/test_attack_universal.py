"""Universal perturbation: one for all, fitted elsewhere."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from attack_models import linear_net
from torch import nn

from purpleteam.attacks import evaluate
from purpleteam.attacks.evasion.universal import Universal
from purpleteam.attacks.norms import distance, project
from purpleteam.core.errors import UsageError
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.models.devices import to_batch


def fallen(model: nn.Module, images: ImageSet, perturbation: torch.Tensor, norm: str) -> int:
    x, y = to_batch(images.images), torch.from_numpy(images.labels.copy())
    with torch.no_grad():
        return int((model((x + perturbation).clamp(0, 1)).argmax(1) != y).sum())


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.15), ("l2", 2.5)])
def test_it_breaks_images_that_it_never_saw_and_noise_does_not(
    standard: nn.Module, digits: Dataset, images: ImageSet, norm: str, epsilon: float
) -> None:
    attack = Universal(norm=norm, epsilon=epsilon, steps=40)
    fitted = attack.prepare(standard, digits.validation)
    x, y = to_batch(images.images), torch.from_numpy(images.labels.copy())
    broken = int(fitted.run(standard, x, y).broken.sum())
    noise = torch.randn((1, *x.shape[1:]), generator=torch.Generator().manual_seed(0)).sign()
    noise = noise * epsilon / float(distance(noise, 0 * noise, norm))
    assert broken > 15 + fallen(standard, images, noise, norm)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_adds_the_same_to_every_image(
    standard: nn.Module, digits: Dataset, images: ImageSet, norm: str
) -> None:
    fitted = Universal(norm=norm, epsilon=0.02, steps=15).prepare(standard, digits.validation)
    x, y = to_batch(images.images), torch.from_numpy(images.labels.copy())
    added = fitted.fitted  # type: ignore[attr-defined]
    expected = project(x + added, x, 0.02, norm)
    torch.testing.assert_close(fitted(standard, x, y), expected, rtol=0, atol=1e-7)
    assert distance(added, torch.zeros_like(added), norm) <= 0.02 + 1e-6


def test_the_same_seed_fits_the_same_and_another_does_not(
    standard: nn.Module, digits: Dataset
) -> None:
    def found(seed: int) -> torch.Tensor:
        attack = Universal(epsilon=0.1, steps=4).prepare(standard, digits.validation, seed=seed)
        return attack.fitted  # type: ignore[attr-defined, no-any-return]

    assert torch.equal(found(1), found(1))
    assert not torch.equal(found(1), found(2))


def test_the_fit_leaves_the_model_and_the_images_alone(
    standard: nn.Module, digits: Dataset
) -> None:
    before = {key: value.clone() for key, value in standard.state_dict().items()}
    digest, state = digits.validation.digest, torch.get_rng_state()
    training, gradients = standard.training, [one.grad for one in standard.parameters()]
    Universal(epsilon=0.1, steps=2).prepare(standard.train(), digits.validation)
    assert standard.training
    standard.train(training)
    assert all(torch.equal(before[key], value) for key, value in standard.state_dict().items())
    after = [one.grad for one in standard.parameters()]
    assert all(one is two for one, two in zip(gradients, after, strict=True))
    assert digits.validation.digest == digest and torch.equal(torch.get_rng_state(), state)


def test_its_row_is_what_was_asked_for_and_can_be_recorded(
    standard: nn.Module, digits: Dataset, images: ImageSet
) -> None:
    attack = Universal(epsilon=0.2, steps=15)
    found = evaluate(standard, images, attack, fit_on=digits.validation)
    config = json.loads(json.dumps(found.attacks[0].to_json()))["config"]
    assert config == dataclasses.asdict(attack)
    assert found.robust_accuracy.value < found.clean_accuracy.value


def test_before_it_is_fitted_it_says_what_is_missing() -> None:
    x = torch.rand((2, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    with pytest.raises(UsageError, match="'universal' is the same for all images, so it is fitted"):
        Universal()(linear_net(), x, torch.zeros(2, dtype=torch.int64))
