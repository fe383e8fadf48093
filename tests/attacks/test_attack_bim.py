"""BIM: the closed form of a linear net, and the steps that it takes."""

from __future__ import annotations

import pytest
import torch
from attack_models import images_of_the_middle, label_of, linear_net
from torch import nn

from purpleteam.attacks import ATTACKS, FGSM, PGD
from purpleteam.attacks.evasion.bim import BIM
from purpleteam.attacks.norms import distance
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import to_batch


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
@pytest.mark.parametrize("seed", range(4))
def test_a_linear_net_falls_just_above_its_closed_form(norm: str, dual: int, seed: int) -> None:
    net, x = linear_net(seed=seed), images_of_the_middle(1, seed=seed)
    with torch.no_grad():
        normal = net[1].weight[1] - net[1].weight[0]
        margin = (net(x)[0, 1] - net(x)[0, 0]).abs()
    least = float(margin / torch.linalg.vector_norm(normal, ord=dual))
    for share, falls in ((1.01, True), (0.99, False)):
        attack = BIM(norm=norm, epsilon=share * least, steps=10)
        assert bool(attack.run(net, x, label_of(net, x)).broken) is falls


def test_one_step_is_fgsm_and_pgd_without_a_random_start_is_the_same_walk() -> None:
    net, x = linear_net(), images_of_the_middle(5)
    y = label_of(net, x)
    assert torch.equal(BIM(epsilon=0.01, steps=1)(net, x, y), FGSM(epsilon=0.01)(net, x, y))
    pgd = PGD(epsilon=0.01, steps=4, step_size=0.01 / 4, random_start=False)
    assert torch.equal(BIM(epsilon=0.01, steps=4)(net, x, y), pgd(net, x, y))


def test_its_steps_together_just_reach_the_border() -> None:
    net, x = linear_net(), images_of_the_middle(5)
    found = BIM(epsilon=0.002, steps=7).run(net, x, label_of(net, x))
    assert not found.broken.any()
    moved = distance(found.x_adv, x, "linf")
    torch.testing.assert_close(moved, torch.full((5,), 0.002).double(), rtol=0, atol=1e-6)


def test_it_is_stronger_than_one_step(standard: nn.Module, images: ImageSet) -> None:
    x, y = to_batch(images.images), torch.from_numpy(images.labels.copy())
    broken = {
        name: ATTACKS[name](epsilon=0.05).run(standard, x, y).broken.sum()
        for name in ("fgsm", "bim")
    }
    assert broken["bim"] >= broken["fgsm"] > 0
