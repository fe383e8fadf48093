"""The assignment's parts registered, the embedded digits, and a net trained on them."""

from __future__ import annotations

import pytest
from torch import nn

from purpleteam.core.plugins import load_plugin
from purpleteam.data.images import Dataset
from purpleteam.data.sources.digits import load_digits
from purpleteam.models import RECIPES, build, train

load_plugin("assignment")


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_digits()


@pytest.fixture(scope="session")
def baseline(digits: Dataset) -> nn.Module:
    net = build("small_cnn", (1, 28, 28), 10, seed=0)
    return train(net, digits.train, digits.validation, RECIPES["plain"](epochs=5), seed=0).module
