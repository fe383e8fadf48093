"""Auto-PGD beside the papers' algorithms, written out here for one image and with no batch."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import pytest
import torch
from attack_models import images_of_the_middle
from torch import Tensor, nn

from purpleteam.attacks.evasion.apgd import APGDCE
from purpleteam.attacks.norms import NORMS, Noise, project, steepest

STEPS = 100
Ask = Callable[[Tensor], tuple[float, Tensor]]


class Hills(nn.Module):
    """A smooth landscape that never errs, the rougher the higher its frequency."""

    def __init__(self, frequency: float) -> None:
        super().__init__()
        self.frequency = frequency

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        along = torch.linspace(1, 3, flat.shape[1])
        bowl = 2 * (flat - 0.55).square() * along
        height = (torch.sin(self.frequency * flat * along) - bowl).sum(1)
        return torch.stack((torch.zeros_like(height), 0.1 * height - 9), 1)

    def ask(self, x_adv: Tensor) -> tuple[float, Tensor]:
        x_adv = x_adv.clone().requires_grad_(True)
        value = nn.functional.cross_entropy(self(x_adv), torch.tensor([0]))
        return value.item(), torch.autograd.grad(value, x_adv)[0]


def checkpoints() -> list[int]:
    shares = [0.0, 0.22]
    while shares[-1] <= 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return [ceil(round(share * STEPS, 6)) for share in shares]


def algorithm_1(ask: Ask, x: Tensor, start: Tensor, epsilon: float, norm: str) -> Tensor:
    """Croce & Hein 2020 (arXiv:2003.01690), by the numbers of its lines."""
    eta, w = 2 * epsilon, checkpoints()
    f, slope = [0.0] * (STEPS + 1), start
    x_old, x_now = start, start
    f[0], slope = ask(start)
    x_max, f_max, slope_max = start, f[0], slope
    etas, maxima, rose = {0: eta}, {0: f_max}, []
    for k in range(STEPS):
        z = project(x_now + eta * steepest(slope, norm), x, epsilon, norm)
        share = 1.0 if k == 0 else 0.75
        x_new = project(
            x_now + share * (z - x_now) + (1 - share) * (x_now - x_old), x, epsilon, norm
        )
        f[k + 1], slope = ask(x_new)
        rose.append(f[k + 1] > f[k])
        x_old, x_now = x_now, x_new
        if f[k + 1] > f_max:
            x_max, f_max, slope_max = x_new, f[k + 1], slope
        if k + 1 in w:
            before = w[w.index(k + 1) - 1]
            one = sum(rose[before:]) < 0.75 * (k + 1 - before)
            two = etas[before] == eta and maxima[before] == f_max
            etas[k + 1], maxima[k + 1] = eta, f_max
            if one or two:
                eta, x_now, f[k + 1], slope = eta / 2, x_max, f_max, slope_max
    return x_max


def sparse_ascent(ask: Ask, x: Tensor, start: Tensor, epsilon: float) -> Tensor:
    """Croce & Hein 2021 (arXiv:2103.01208): steps along the k largest slopes."""
    pixels = x.numel()
    eta, k, changed = epsilon, round(0.2 * pixels), pixels
    value, slope = ask(start)
    x_now, x_max, f_max, slope_max = start, start, value, slope
    for step in range(1, STEPS + 1):
        largest = slope.flatten().abs().argsort(descending=True)[:k]
        move = torch.zeros(pixels).index_put((largest,), slope.flatten()[largest].sign() / k)
        x_now = project(x_now + eta * move.view_as(x), x, epsilon, "l1")
        value, slope = ask(x_now)
        if value > f_max:
            x_max, f_max, slope_max = x_now, value, slope
        if step % 4 == 0:
            before, changed = changed, int((x_max != x).sum())
            k = max(round(changed / 1.5), 1)
            if changed < 0.95 * before:
                eta, x_now, slope = epsilon, x_max, slope_max
            else:
                eta = max(eta / 1.5, epsilon / 10)
    return x_max


@pytest.mark.parametrize(
    ("norm", "epsilon", "frequency"),  # steps of one length in L2 are chaotic where it is rough
    [("linf", 0.3, 5.0), ("l2", 1.0, 1.0), ("l1", 2.5, 9.0)],
)
def test_a_batch_goes_the_way_of_the_papers_algorithm(
    norm: str, epsilon: float, frequency: float
) -> None:
    x, index, net = images_of_the_middle(3), torch.arange(3), Hills(frequency)
    attack = APGDCE(norm=norm, epsilon=epsilon, steps=STEPS)
    found = attack.run(net, x, torch.zeros(3, dtype=torch.int64))
    starts = NORMS[norm].rim(x, epsilon, Noise(0, index))
    for one, start, x_adv in zip(x.split(1), starts.split(1), found.x_adv.split(1), strict=True):
        if norm == "l1":
            expected = sparse_ascent(net.ask, one, start, epsilon)
        else:
            expected = algorithm_1(net.ask, one, start, epsilon, norm)
        assert torch.allclose(x_adv, expected, atol=1e-4)
    assert not found.broken.any()


def test_the_papers_checkpoints_are_the_papers() -> None:
    assert checkpoints()[1:-1] == [22, 41, 57, 70, 80, 87, 93, 99]
