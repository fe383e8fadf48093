"""Before and after: transfer says little, the attack on the defended model itself says it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from purpleteam.attacks import PGD, evaluate
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.defences import DEFENCES, Hardening
from purpleteam.defences.evaluate import transfer_accuracy
from purpleteam.defences.training.pgd import craft_linf
from purpleteam.models import build
from purpleteam.models.inference import correct


def grey(values: list[int], labels: list[int]) -> ImageSet:
    images = np.array(values, np.uint8).reshape(-1, 1, 1, 1)
    return ImageSet(images, np.array(labels, np.int64))


def bright(x: Tensor) -> Tensor:
    """Say 1 of a pixel above the middle."""
    return torch.stack([0.5 - x.flatten(1)[:, 0], x.flatten(1)[:, 0] - 0.5], 1)


def test_transfer_accuracy_is_counted_on_the_images_given() -> None:
    clean, made = grey([0, 10, 250, 250], [0, 0, 1, 1]), grey([200, 20, 100, 240], [0, 0, 1, 1])
    found = transfer_accuracy(bright, made, clean, {"model": "sha256:1"}, attack="fgsm")
    assert (found.value.successes, found.value.n) == (2, 4)
    assert found.name == "transfer_accuracy"
    assert found.how == {"knowledge": "transfer", "attack": "fgsm"}


def test_transfer_accuracy_records_how_far_the_images_truly_moved() -> None:
    clean, made = grey([0, 10, 250, 250], [0, 0, 1, 1]), grey([200, 20, 100, 240], [0, 0, 1, 1])
    detail = transfer_accuracy(bright, made, clean, {}).detail
    assert detail["largest_linf"] == pytest.approx(200 / 255)
    assert detail["share_moved_over_half"] == 2 / 4
    assert detail["images"] == made.digest


def test_adversarial_training_withstands_more_than_none(
    baseline: nn.Module, digits: Dataset
) -> None:
    net = build("small_cnn", (1, 28, 28), 10, seed=0)
    recipe = DEFENCES["pgd"](epsilon=0.1, epochs=6, steps=3, validation_images=50)
    hardened = recipe.harden(Hardening(net=net, dataset=digits)).module
    test, attack = digits.test.first(100), PGD(epsilon=0.1, steps=20)
    before = evaluate(baseline, test, attack).robust_accuracy
    assert evaluate(hardened, test, attack).robust_accuracy.value > before.value + 0.1


def test_the_epoch_is_chosen_by_robust_accuracy_on_validation(digits: Dataset) -> None:
    few = dataclasses.replace(digits, train=digits.train.first(96))
    recipe = DEFENCES["pgd"](epsilon=0.1, epochs=1, validation_images=40)
    net = build("small_cnn", (1, 28, 28), 10, seed=0)
    done = recipe.harden(Hardening(net=net, dataset=few))
    looked_at = digits.validation.first(40)
    expected = evaluate(done.module, looked_at, PGD(epsilon=0.1, steps=10)).robust_accuracy.value
    assert done.best.attacked == done.best.score == expected
    assert done.best.validation_accuracy == correct(done.module, looked_at).mean() >= expected


def test_training_images_stay_in_ball_and_range_and_the_net_in_train_mode(
    baseline: nn.Module, digits: Dataset
) -> None:
    x = torch.from_numpy(digits.train.first(20).images.copy()).permute(0, 3, 1, 2) / 255
    y = torch.from_numpy(digits.train.first(20).labels.copy())
    made = craft_linf(baseline, x, y, 0.1, 0.05, 3, torch.Generator().manual_seed(0))
    assert (made - x).abs().max() <= 0.1 + 1e-6 and made.min() >= 0 and made.max() <= 1
    assert baseline.training and not made.requires_grad
    baseline.eval()
    with torch.no_grad():
        loss, before = (nn.functional.cross_entropy(baseline(z), y) for z in (made, x))
    assert loss > before


def test_training_images_are_made_against_the_net_as_it_answers_in_eval_mode() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 2))
    x, y = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 2
    before, state = net[0].running_mean.clone(), torch.get_rng_state()
    craft_linf(net.train(), x, y, 0.1, 0.05, 3, torch.Generator().manual_seed(0))
    assert torch.equal(net[0].running_mean, before)  # no statistics of images that are no data
    assert torch.equal(torch.get_rng_state(), state)  # and no dropout was drawn
