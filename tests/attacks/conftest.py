"""A net that reads the embedded digits, and one hardened a little."""

from __future__ import annotations

import pytest
from torch import nn

from purpleteam.data.images import Dataset, ImageSet
from purpleteam.data.sources.digits import load_digits
from purpleteam.defences import DEFENCES, Hardening
from purpleteam.models import RECIPES, build, train


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_digits()


@pytest.fixture(scope="session")
def images(digits: Dataset) -> ImageSet:
    return digits.test.first(60)


@pytest.fixture(scope="session")
def standard(digits: Dataset) -> nn.Module:
    net = build("small_cnn", (1, 28, 28), 10, seed=0)
    return train(net, digits.train, digits.validation, RECIPES["plain"](epochs=5), seed=0).module


@pytest.fixture(scope="session")
def hardened(digits: Dataset) -> nn.Module:
    recipe = DEFENCES["pgd"](epsilon=0.1, epochs=6, steps=3, validation_images=50)
    net = build("small_cnn", (1, 28, 28), 10, seed=0)
    return recipe.harden(Hardening(net=net, dataset=digits)).module
