"""Training under noise: the smoothed classifier of such a net is right on more images."""

from __future__ import annotations

import pytest

from purpleteam.certify.smoothing import Smoothing, certify_smoothing
from purpleteam.data.images import Dataset
from purpleteam.defences import DEFENCES, Hardening
from purpleteam.models import Training, build, train
from purpleteam.models.recipes import RECIPES

SIGMA, RADIUS = 0.5, 0.4


@pytest.fixture(scope="module")
def noisy(digits: Dataset) -> Training:
    recipe = DEFENCES["noise"](epochs=6, sigma=SIGMA, epsilon=RADIUS, validation_images=20)
    return recipe.harden(Hardening(net=build("small_cnn", (1, 28, 28), 10, seed=0), dataset=digits))


def test_it_certifies_larger_radii_than_training_without_noise(
    digits: Dataset, noisy: Training
) -> None:
    net = build("small_cnn", (1, 28, 28), 10, seed=0)
    plain = train(net, digits.train, digits.validation, RECIPES["plain"](epochs=6), seed=0)
    few, smoothing = digits.validation.part(40, 90), Smoothing(sigma=SIGMA, estimation_samples=200)
    with_noise, without = (
        certify_smoothing(one.module, few, smoothing).average_radius.value for one in (noisy, plain)
    )
    assert with_noise > without + 0.05


def test_the_epoch_is_chosen_by_certified_validation_accuracy(
    digits: Dataset, noisy: Training
) -> None:
    smoothing = Smoothing(sigma=SIGMA, selection_samples=10, estimation_samples=100)
    proved = certify_smoothing(noisy.module, digits.validation.first(20), smoothing)
    assert noisy.best.certified == proved.certified_accuracy(RADIUS).value
    assert noisy.best.certified == max(epoch.certified or 0 for epoch in noisy.epochs)
    assert noisy.best.validation_accuracy == proved.certified_accuracy(0).value
