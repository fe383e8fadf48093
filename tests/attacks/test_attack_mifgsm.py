"""MI-FGSM: its momentum, beside the recurrence of the paper and BIM."""

from __future__ import annotations

import pytest
import torch
from attack_models import images_of_the_middle, label_of, linear_net
from torch import Tensor, nn

from purpleteam.attacks.evasion.bim import BIM
from purpleteam.attacks.evasion.mifgsm import MIFGSM
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import to_batch


class Bowl(nn.Module):
    """Two classes and a loss whose gradient turns as one moves."""

    def forward(self, x: Tensor) -> Tensor:
        z = x.flatten(1)
        return torch.stack([torch.sin(30 * z).sum(1), torch.cos(25 * z).sum(1)], 1) + 20 * (
            torch.tensor([1.0, 0.0])
        )


def recurrence(net: nn.Module, x: Tensor, y: Tensor, epsilon: float, steps: int) -> Tensor:
    """Return what the paper's equations 6 and 7 give, written out."""
    x_adv, g = x.clone(), torch.zeros_like(x)
    for _ in range(steps):
        x_adv.requires_grad_(True)
        loss = nn.functional.cross_entropy(net(x_adv), y, reduction="sum")
        (slope,) = torch.autograd.grad(loss, x_adv)
        g = g + slope / slope.abs().sum((1, 2, 3), keepdim=True)
        x_adv = (x_adv + epsilon / steps * g.sign()).detach()
        x_adv = torch.clamp(x_adv, x - epsilon, x + epsilon).clamp(0, 1)
    return x_adv


def test_it_walks_as_the_paper_says() -> None:
    net, x = Bowl(), images_of_the_middle(6)
    y = torch.zeros(6, dtype=torch.int64)
    ours = MIFGSM(epsilon=0.2, steps=10)(net, x, y)
    torch.testing.assert_close(ours, recurrence(net, x, y, 0.2, 10), rtol=0, atol=1e-6)


def test_without_memory_it_is_bim_and_with_it_it_is_not() -> None:
    net, x = Bowl(), images_of_the_middle(6)
    y = torch.zeros(6, dtype=torch.int64)
    bim = BIM(epsilon=0.2)(net, x, y)
    assert torch.equal(MIFGSM(epsilon=0.2, decay=0.0)(net, x, y), bim)
    assert not torch.equal(MIFGSM(epsilon=0.2)(net, x, y), bim)


@pytest.mark.parametrize("seed", range(4))
def test_a_linear_net_falls_just_above_its_closed_form(seed: int) -> None:
    net, x = linear_net(seed=seed), images_of_the_middle(1, seed=seed)
    with torch.no_grad():
        normal = net[1].weight[1] - net[1].weight[0]
        least = float((net(x)[0, 1] - net(x)[0, 0]).abs() / normal.abs().sum())
    y = label_of(net, x)
    assert MIFGSM(epsilon=1.01 * least).run(net, x, y).broken.all()
    assert not MIFGSM(epsilon=0.99 * least).run(net, x, y).broken.any()


def test_it_is_no_weaker_than_bim_by_much(standard: nn.Module, images: ImageSet) -> None:
    x, y = to_batch(images.images), torch.from_numpy(images.labels.copy())
    bim, momentum = (kind(epsilon=0.1).run(standard, x, y).broken.sum() for kind in (BIM, MIFGSM))
    assert momentum >= bim - 3 and momentum > 0


@pytest.mark.parametrize("decay", [-0.1, 1.1, float("nan")])
def test_a_decay_that_is_no_share_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay must be from 0 to 1"):
        MIFGSM(decay=decay)
