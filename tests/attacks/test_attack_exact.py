"""FGSM and PGD as a bare float32 loop makes them: the same verdict for every image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from purpleteam.attacks import FGSM, PGD
from purpleteam.models import devices

SIDE = 8


def net_of_two_layers() -> nn.Module:
    """Return a convolutional net whose answers lie close together."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * SIDE * SIDE, 4)).eval()


def bare_loop(net: nn.Module, x: Tensor, y: Tensor, epsilon: float, steps: int) -> Tensor:
    """Return where the net errs at any of its own steps, as every tutorial writes it."""
    length = epsilon if steps == 1 else 2.5 * epsilon / steps
    x_adv, broken = x.clone(), torch.zeros(len(x), dtype=torch.bool)
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(F.cross_entropy(net(x_adv), y, reduction="sum"), x_adv)
        moved = x_adv.detach() + length * slope.sign()
        x_adv = torch.clamp(torch.minimum(torch.maximum(moved, x - epsilon), x + epsilon), 0, 1)
        with torch.no_grad():
            broken |= net(x_adv).argmax(1) != y
    return broken


@pytest.mark.parametrize("units", [True, False])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("steps", [1, 10])
def test_they_break_the_images_that_a_bare_loop_breaks(
    units: bool, order: torch.memory_format, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "has_fast_bf16", lambda _: units)
    net = net_of_two_layers().to(memory_format=order)
    x = torch.rand(400, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = net(x).argmax(1)
    expected = bare_loop(net, x, y, 0.12, steps)
    attack = FGSM(epsilon=0.12) if steps == 1 else PGD(epsilon=0.12, steps=10, random_start=False)
    assert 50 < expected.sum() < 350
    assert torch.equal(attack.run(net, x, y).broken, expected)
