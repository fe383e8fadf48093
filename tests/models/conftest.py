"""A stored model and images, made once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from models_tiny import SHAPE, bars

from purpleteam.core.cards import StoredModel
from purpleteam.data.images import ImageSet
from purpleteam.models import Provenance, build, store


@pytest.fixture(autouse=True)
def untouched_chance() -> Iterator[None]:
    """No test of this room may leave the global random numbers changed."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture(scope="session")
def images() -> ImageSet:
    return bars(90)


@pytest.fixture(scope="session")
def validation() -> ImageSet:
    return bars(30, seed=1)


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    """A stored model whose name has a dot in it; nobody changes it."""
    provenance = Provenance(
        architecture="small_cnn",
        shape=SHAPE,
        classes=("top", "middle", "bottom"),
        recipe={"epochs": 0, "seed": 5},
        data_digest="sha256:data",
        validation_accuracy=0.25,
    )
    stem = tmp_path_factory.mktemp("models") / "small-0.3"
    return store(build("small_cnn", SHAPE, 3, seed=5), stem, provenance)


@pytest.fixture
def own(kept: StoredModel, tmp_path: Path) -> StoredModel:
    """A copy of that model that a test may change."""
    folder = shutil.copytree(kept.stem.parent, tmp_path / "own")
    return StoredModel(Path(folder) / kept.stem.name, kept.card)
