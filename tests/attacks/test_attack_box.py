"""A net behind an input ramp: plain gradients find nothing, steps in its box do, and it is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from purpleteam.attacks import Soundness, curve, soundness_of
from purpleteam.attacks.driver import Box, Cost, Driver, Search
from purpleteam.attacks.evasion import ATTACKS, EvasionAttack
from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.data.images import ImageSet
from purpleteam.models.adapters import Normalisation
from purpleteam.models.inference import Nets

EPSILON = 0.3
SHAPE = (3, 4, 4)
SIGNS = torch.where(torch.arange(48) % 2 == 0, 1.0, -1.0)


class Hidden(nn.Module):
    """Somebody's net that clips its input by itself."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.net((x.clip(0.3, 0.7) - 0.3) / 0.4)


def linear() -> nn.Module:
    """Tell which half of the values is bright, from -24 to 24; an error needs half of the box."""
    layer = nn.Linear(48, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([-SIGNS, SIGNS]) / 2)
        layer.bias.copy_(torch.tensor([-18.0, 0.0]))
    return nn.Sequential(nn.Flatten(), layer)


RAMPED = {
    "ours": lambda: Normalisation.ramp(EPSILON).before(linear()),
    "hidden": lambda: Hidden(linear()),
}


def images() -> ImageSet:
    """Return colour images with values of 0.1 and 0.9: in its ball each enters the ramp by 0.1."""
    labels = np.arange(60) % 2
    bright = (SIGNS.numpy() > 0) == (labels[:, None] == 1)
    pixels = np.where(bright, 230, 25) + np.random.default_rng(0).integers(-5, 6, bright.shape)
    return ImageSet(pixels.reshape(-1, 4, 4, 3).astype(np.uint8), labels)


def net_of(kind: str) -> nn.Module:
    """Return the net for values in the order of the images above."""
    return nn.Sequential(ChannelsLast(), RAMPED[kind]()).eval()


class ChannelsLast(nn.Module):
    """The values in the order in which the signs are."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H, W) of which the flat values lie channel by channel."""
        return x.permute(0, 2, 3, 1).reshape(x.shape)


def checked(net: nn.Module, *ladder: EvasionAttack) -> tuple[float, Soundness]:
    points = list(curve(net, images(), ladder, [EPSILON]).values())
    return points[0].robust_accuracy.value, soundness_of(net, images(), ladder, points)


@pytest.mark.parametrize("kind", RAMPED)
def test_plain_gradients_find_nothing_and_are_called_unsound(kind: str) -> None:
    robust, found = checked(net_of(kind), PGD(epsilon=EPSILON, steps=20))
    assert robust == 1 and found.verdict == "not_established"
    (reason,) = (line for line in found.reasons if "no gradient" in line)
    assert reason.startswith("outside [0.3, 0.7]") and "--attack box" in reason


@pytest.mark.parametrize("kind", RAMPED)
@pytest.mark.parametrize("name", ["box", "ladder"])
def test_steps_in_the_box_break_what_can_be_broken_and_are_sound(kind: str, name: str) -> None:
    robust, found = checked(net_of(kind), ATTACKS[name](epsilon=EPSILON, queries=50))
    assert robust == 0.5 and (found.verdict, found.reasons) == ("sound", ())


def test_in_another_norm_it_is_told_that_nothing_steps_over_the_flat_parts() -> None:
    _, found = checked(net_of("ours"), PGD(norm="l2", epsilon=EPSILON, steps=20))
    assert any("no attack in l2 steps over" in reason for reason in found.reasons)


def test_the_ladder_steps_in_a_box_only_where_there_is_one() -> None:
    ladder, x = ATTACKS["ladder"](epsilon=EPSILON), torch.rand(4, *SHAPE)
    names = {
        kind: [member.name for member in ladder.rungs(Nets.of(net.eval(), x))]
        for kind, net in (("plain", linear()), ("ramped", net_of("ours")))
    }
    assert names["ramped"] == ["box_apgd_ce", "box_apgd_t", *names["plain"]]


def test_what_is_asked_and_told_of_a_candidate_is_its_image() -> None:
    x, net = torch.rand((8, *SHAPE), generator=torch.Generator().manual_seed(0)), net_of("ours")
    search = Search(epsilon=0.9, norm="linf", in_box=True)
    driver = Driver(Nets.of(net, x), x, net(x).argmax(1), search, Cost())
    asked, told = driver.logits(x), driver.settle(x)
    torch.testing.assert_close(asked, net(told).detach())
    assert told.min() >= 0.3 and told.max() <= 0.7


unit = st.floats(0, 1, width=32)


@settings(max_examples=40, deadline=None)
@given(unit, unit, st.floats(0, 1), st.floats(0.05, 0.45))
def test_a_point_of_the_box_is_met_by_an_image_of_the_ball(
    value: float, share: float, epsilon: float, ramp: float
) -> None:
    h = Normalisation.ramp(ramp)
    x = torch.full((1, 1, 1, 1), value)
    low, high = (x - epsilon).clamp(0, 1), (x + epsilon).clamp(0, 1)
    sloped = torch.tensor([ramp, 1 - ramp]).view(2, 1, 1, 1, 1)
    found = Box(x, epsilon, sloped).image(low + share * (high - low), torch.arange(1))
    assert low <= found <= high
    torch.testing.assert_close(h(found), torch.lerp(h(low), h(high), share), rtol=0, atol=1e-4)
