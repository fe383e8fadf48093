"""The data set of every test here."""

from __future__ import annotations

import pytest

from purpleteam.data.images import Dataset
from purpleteam.data.sources.digits import load_digits


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_digits()
