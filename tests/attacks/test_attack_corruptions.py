"""Corruptions as an attack: the worst kind for each image, and the table of them all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from purpleteam.attacks.evasion.corruptions import Corruptions
from purpleteam.core.errors import ConfigError
from purpleteam.data.corruptions import CORRUPTIONS, corrupt
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import to_batch
from purpleteam.models.inference import correct
from purpleteam.verbs.ladders import attack_from


def batch(images: ImageSet) -> tuple[Tensor, Tensor]:
    return to_batch(images.images), torch.from_numpy(images.labels.copy())


def test_its_verdict_is_the_worst_over_the_kinds(standard: nn.Module, images: ImageSet) -> None:
    kinds = ("rotate", "shot_noise", "spatter")
    found = Corruptions(epsilon=2, kinds=kinds).run(standard, *batch(images), seed=5)
    sets = [ImageSet(corrupt(images.images, kind, 2, seed=5), images.labels) for kind in kinds]
    right = np.logical_and.reduce([correct(standard, one) for one in (images, *sets)])
    assert np.array_equal(found.broken.numpy(), ~right)
    assert 0 < right.sum() < len(images)


def test_what_it_returns_is_that_image_corrupted(standard: nn.Module, images: ImageSet) -> None:
    attack = Corruptions(epsilon=4, kinds=("rotate", "scale"))
    index = torch.arange(len(images)) + 100
    found = attack.run(standard, *batch(images), seed=2, index=index)
    candidates = [
        to_batch(corrupt(images.images, kind, 4, seed=2, index=index.numpy()))
        for kind in ("rotate", "scale")
    ]
    candidates.append(to_batch(images.images))
    gap = torch.stack([(one - found.x_adv).abs().amax((1, 2, 3)) for one in candidates])
    assert gap.amin(0).max() < 1e-6


def test_the_default_tries_every_kind_and_one_is_one_query(images: ImageSet) -> None:
    sure = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with torch.no_grad():
        sure[1].weight.zero_()
        sure[1].bias.copy_(torch.arange(10.0))
    x, _ = batch(images)
    found = Corruptions().run(sure, x, torch.full((len(x),), 9))
    assert Corruptions().planned_steps == len(CORRUPTIONS) == 15
    assert not found.broken.any() and (found.queries == 15 + 1).all()  # and the image itself


def test_a_severity_that_there_is_not_and_an_unknown_kind_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"is a severity: 0 to 5, not 0.3"):
        attack_from("corruptions:epsilon=0.3")
    with pytest.raises(ConfigError, match=r"unknown corruption 'fogg' \(did you mean 'fog'\?\)"):
        attack_from("corruptions:kinds=['fogg']")
    assert attack_from("corruptions:kinds=['fog'],epsilon=5") == Corruptions(
        epsilon=5, kinds=("fog",)
    )
