"""Nets as people write them: `view` after a convolution, which fails in another order in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from purpleteam.attacks.poison.badnets import BadNets
from purpleteam.attacks.poison.triggers import Trigger
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.defences.detection.model import MODEL_DETECTORS, scan_model
from purpleteam.defences.detection.training_set import TRAINING_SET_DETECTORS, Analysis
from purpleteam.defences.repair import REPAIRS, Repairing
from purpleteam.models import RECIPES, logits, train

TARGET = 4


class Tutorial(nn.Module):
    """Two convolutions and a `view`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5)
        self.conv2 = nn.Conv2d(8, 16, 5)
        self.fc1 = nn.Linear(256, 32)
        self.fc2 = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(torch.max_pool2d(self.conv1(x), 2))
        x = torch.relu(torch.max_pool2d(self.conv2(x), 2))
        return self.fc2(torch.relu(self.fc1(x.view(-1, 256))))


class Corner:
    """The trigger, as a scan might recover it."""

    def apply(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[:, :, -4:, -4:] = 1
        return x


@pytest.fixture(scope="module")
def poisoned(digits: Dataset) -> ImageSet:
    poison = BadNets(count=60, trigger=Trigger(size=4), target_label=TARGET)
    return poison.apply(digits.train, seed=0).images


@pytest.fixture(scope="module")
def brought(digits: Dataset, poisoned: ImageSet) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Tutorial()
    return train(net, poisoned, digits.validation, RECIPES["plain"](epochs=6), seed=0).module


def test_it_is_scanned_and_its_target_stands_out(digits: Dataset, brought: nn.Module) -> None:
    detectors = [
        part() if name == "feature" else part(steps=3) for name, part in MODEL_DETECTORS.items()
    ]
    found = scan_model(brought, digits.validation.first(100), classes=10, detectors=detectors)
    (shift,) = [one for one in found.evidence if one.detector == "feature"]
    assert shift.target_label == TARGET
    # It reads four of five images, and no trigger can be drawn: that is no accusation.
    assert found.verdict != "backdoored" or found.target_label == TARGET


@pytest.mark.parametrize("name", ["spectral_signatures", "spectre", "scan"])
def test_its_training_set_is_searched_with_it(
    name: str, poisoned: ImageSet, brought: nn.Module
) -> None:
    analysis = Analysis(images=poisoned, classes=10, model=brought)
    assert np.isfinite(TRAINING_SET_DETECTORS[name](analysis)).all()
    assert analysis.model_features.shape == (len(poisoned), 32)


@pytest.mark.parametrize("name", REPAIRS)
def test_every_repair_mends_it(
    name: str, digits: Dataset, poisoned: ImageSet, brought: nn.Module
) -> None:
    work = Repairing(
        model=brought,
        net=Tutorial,
        train=poisoned,
        flagged=np.arange(10),
        trusted=digits.validation.first(100),
        trigger=Corner(),
        target_label=TARGET,
        recipe=RECIPES["plain"](epochs=1),
    )
    short = {} if name == "retrain" else {"steps": 10}
    short |= {"rounds": 2} if name == "unlearn" else {}
    mended = REPAIRS[name](**short).repair(work)
    assert np.isfinite(logits(mended, digits.validation.images[:10])).all()
