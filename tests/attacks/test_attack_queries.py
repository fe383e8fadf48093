"""How many model calls each image took: part of an outcome, like its distance."""

from __future__ import annotations

import torch
from torch import nn

from purpleteam.attacks.evasion.pgd import PGD


def _line() -> nn.Module:
    """A net whose label is 1 exactly where the first pixel is above a half."""
    net = nn.Linear(4, 2)
    with torch.no_grad():
        net.weight.zero_()
        net.weight[1, 0], net.bias[:] = 1.0, torch.tensor([0.0, -0.5])
    return nn.Sequential(nn.Flatten(), net)


def test_a_dropped_image_costs_no_more_calls_and_the_calls_add_up() -> None:
    x = torch.full((2, 1, 2, 2), 0.5)
    x[0, 0, 0, 0], x[1, 0, 0, 0] = 0.49, 0.0  # a step from the edge, and out of reach
    found = PGD(epsilon=0.1, steps=7, random_start=False).run(_line(), x, torch.tensor([0, 0]))
    assert found.broken.tolist() == [True, False]
    assert found.queries[0] < found.queries[1]
    assert found.queries[1] == 7 + 1  # one for each step, and the verdict on the last candidate
    assert int(found.queries.sum()) == found.cost.forward
