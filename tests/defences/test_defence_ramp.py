"""A defence behind the input ramp of its epsilon: what is trained, and against what."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from purpleteam.core.errors import UsageError
from purpleteam.data.sources.digits import load_digits
from purpleteam.defences import DEFENCES, Hardening
from purpleteam.defences.training.pgd import craft_linf
from purpleteam.models import build
from purpleteam.models.adapters import NORMALISATIONS, Normalisation, Normalised


def hardened(net: nn.Module, epsilon: float = 0.2) -> nn.Module:
    digits = load_digits()
    few = replace(digits, train=digits.train.first(64), validation=digits.validation.first(20))
    recipe = DEFENCES["pgd"](ramp=True, epsilon=epsilon, epochs=1, steps=2)
    return recipe.harden(Hardening(net=net, dataset=few)).module


def test_the_net_is_trained_behind_the_ramp_and_keeps_its_weights() -> None:
    net = build("small_cnn", (1, 28, 28), 10, seed=0)
    before = net.state_dict()["1.weight"].clone()
    found = hardened(net)
    assert isinstance(found, Normalised) and found.module is net
    assert found.normalisation == Normalisation.ramp(0.2)
    assert not torch.equal(net.state_dict()["1.weight"], before)


def test_training_images_are_made_in_the_box_and_lie_in_the_ball() -> None:
    """From 0.1 a value enters the ramp, from 0.3 to 0.7, by 0.1 and no further."""
    net, signs = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), 1.0 - 2 * (torch.arange(48) % 2)
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([-signs, signs]))
    ramped = Normalisation.ramp(0.3).before(net)
    x, y = torch.full((4, 3, 4, 4), 0.1), torch.zeros(4, dtype=torch.int64)
    x_adv = craft_linf(ramped, x, y, 0.3, 0.3, 5, torch.Generator().manual_seed(0))
    expected = torch.where(signs > 0, 0.4, 0.3).view(1, 3, 4, 4).expand_as(x)
    torch.testing.assert_close(x_adv, expected)


def test_a_net_behind_a_normalisation_takes_no_ramp() -> None:
    net = NORMALISATIONS["signed"].before(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
    with pytest.raises(UsageError, match="takes no ramp: leave one of them out"):
        hardened(net)


def test_a_ramp_has_an_epsilon_below_a_half() -> None:
    with pytest.raises(UsageError, match=r"above 0 and below 0\.5, not 0\.6"):
        hardened(build("small_cnn", (1, 28, 28), 10, seed=0), epsilon=0.6)
