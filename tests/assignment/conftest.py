"""The embedded digits, and a net that was trained on them as they are."""

from __future__ import annotations

import pytest
from torch import nn

from purpleteam.data.images import Dataset
from purpleteam.data.sources.digits import load_digits
from purpleteam.models import RECIPES, build, train


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_digits()


@pytest.fixture(scope="session")
def baseline(digits: Dataset) -> nn.Module:
    net = build("small_cnn", (1, 28, 28), 10, seed=0)
    return train(net, digits.train, digits.validation, RECIPES["plain"](epochs=5), seed=0).module
