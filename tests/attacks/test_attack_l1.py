"""PGD in L1: sparse steps, the closed form of a linear net, and no straw man."""

from __future__ import annotations

import pytest
import torch
from attack_models import images_of_the_middle, label_of, linear_net
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from purpleteam.attacks import PGD
from purpleteam.attacks.norms import NORMS
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import to_batch


def least_change(net: nn.Sequential, x: Tensor) -> float:
    """Return the least L1 perturbation of one image that moves it across a two-class linear net.

    Values are worth their weight, the heaviest first, and each has only so much room.
    """
    with torch.no_grad():
        scores, label = net(x)[0], label_of(net, x)[0]
        normal = net[1].weight[1 - label] - net[1].weight[label]
        margin = float(scores[label] - scores[1 - label])
    room = torch.where(normal > 0, 1 - x.flatten(), x.flatten())
    change = 0.0
    for place in normal.abs().argsort(descending=True).tolist():
        weight, most = float(normal[place].abs()), float(room[place])
        if margin <= weight * most:
            return change + margin / weight
        margin, change = margin - weight * most, change + most
    raise AssertionError("the cube holds no other label")


def broken(attack: PGD, net: nn.Module, x: Tensor) -> bool:
    return bool(attack.run(net, x, label_of(net, x)).broken)


@pytest.mark.parametrize("seed", range(3))
def test_a_linear_net_falls_just_above_its_closed_form_and_never_below(seed: int) -> None:
    net, x = linear_net(seed=seed), images_of_the_middle(1, seed=seed)
    least = least_change(net, x)
    for start in (True, False):
        above = PGD(norm="l1", epsilon=1.05 * least, steps=40, random_start=start)
        assert broken(above, net, x)
        below = PGD(norm="l1", epsilon=0.99 * least, steps=40, random_start=start, restarts=2)
        assert not broken(below, net, x)


@pytest.mark.parametrize("least_weight", [0.2, 0.5, 0.85])
@pytest.mark.parametrize("start", [True, False])
def test_where_values_run_out_of_room_it_goes_on_with_others(
    least_weight: float, start: bool
) -> None:
    layer = nn.Linear(16, 2)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[1] = torch.linspace(1.0, least_weight, 16)
        layer.bias.copy_(torch.tensor([5.5, 0.0]))
    net, x = nn.Sequential(nn.Flatten(), layer), torch.full((1, 1, 4, 4), 0.1)
    least = least_change(net, x)
    assert least > 3  # several values must go all the way
    near = {"norm": "l1", "steps": 40, "random_start": start}
    assert broken(PGD(epsilon=1.05 * least, **near), net, x)
    assert not broken(PGD(epsilon=0.99 * least, **near), net, x)


@given(st.integers(0, 10_000), st.floats(0, 0.99), st.floats(0.01, 4))
@settings(max_examples=60, deadline=None)
def test_no_step_of_such_shares_climbs_faster(seed: int, sparsity: float, length: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    gradient = torch.randn((2, 2, 3, 3), generator=rng)
    x_adv = torch.randint(0, 3, gradient.shape, generator=rng) / 2
    step = NORMS["l1"].step(gradient, x_adv, length, sparsity)
    assert (x_adv + step).min() >= 0 and (x_adv + step).max() <= 1
    share = length / max(1, round((1 - sparsity) * 18))
    room = torch.where(gradient > 0, 1 - x_adv, x_adv)
    for row in range(2):
        climbs = float((gradient[row] * step[row]).sum())
        left, best = length, 0.0
        for place in gradient[row].abs().flatten().argsort(descending=True).tolist():
            part = min(share, left, float(room[row].flatten()[place]))
            left, best = left - part, best + part * float(gradient[row].abs().flatten()[place])
        assert climbs == pytest.approx(best, abs=1e-4)
        assert float(step[row].abs().sum()) <= length + 1e-5


def test_no_gradient_is_no_step() -> None:
    assert not NORMS["l1"].step(torch.zeros(2, 1, 4, 4), torch.rand(2, 1, 4, 4), 1.0, 0.9).any()


def test_sparse_steps_beat_dense_ones(standard: nn.Module, images: ImageSet) -> None:
    x, y = to_batch(images.images), torch.from_numpy(images.labels.copy())
    fallen = {
        sparsity: PGD(norm="l1", epsilon=6, sparsity=sparsity, steps=20).run(standard, x, y).broken
        for sparsity in (0.0, 0.99)
    }
    assert fallen[0.99].sum() > fallen[0.0].sum()


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_a_step_along_nothing_is_refused(sparsity: float) -> None:
    with pytest.raises(ValueError, match="sparsity must be at least 0 and below 1"):
        PGD(norm="l1", sparsity=sparsity)
