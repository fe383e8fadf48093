"""A few digits, and a linear net with more weights than there are canaries."""

from __future__ import annotations

import dataclasses

import pytest

from purpleteam.data.images import Dataset
from purpleteam.data.sources.digits import load_digits


@pytest.fixture(scope="session")
def few() -> Dataset:
    digits = load_digits()
    return dataclasses.replace(
        digits, train=digits.train.first(200), validation=digits.validation.first(20)
    )
