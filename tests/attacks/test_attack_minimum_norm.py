"""Attacks that look for the nearest example, beside the truth about linear nets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_models import label_of
from linear_truth import linear, middling, nearest

from purpleteam.attacks.evasion import ATTACKS, MinimumNormAttack
from purpleteam.attacks.evasion.carlini_wagner import CarliniWagner
from purpleteam.attacks.evasion.ddn import DDN
from purpleteam.attacks.evasion.deepfool import DeepFool
from purpleteam.attacks.evasion.fab import FAB, FABT
from purpleteam.attacks.evasion.fmn import FMN

ALL: list[MinimumNormAttack] = [
    *(FAB(norm=norm, steps=10) for norm in ("linf", "l2", "l1")),
    *(FABT(norm=norm, steps=10) for norm in ("linf", "l2", "l1")),
    *(DeepFool(norm=norm) for norm in ("linf", "l2")),
    DDN(steps=50),
    CarliniWagner(steps=50, searches=4, step_size=0.06, constant=0.1),
    *(FMN(norm=norm, steps=50) for norm in ("linf", "l2", "l1", "l0")),
]
CLOSE = {"linf": 1.05, "l2": 1.05, "l1": 1.25, "l0": 1.25}
BATCHES = [(2, (1, 4, 4), 1), (3, (3, 3, 5), 3), (10, (1, 12, 9), 8)]
every_attack = pytest.mark.parametrize("attack", ALL, ids=lambda one: f"{one.name}-{one.norm}")


def test_every_minimum_norm_attack_is_tested_here() -> None:
    registered = {name for name, one in ATTACKS.items() if issubclass(one, MinimumNormAttack)}
    assert registered - {"hop_skip_jump"} == {attack.name for attack in ALL}


@every_attack
@pytest.mark.parametrize(("classes", "shape", "n"), BATCHES)
def test_on_a_linear_net_it_ends_close_to_the_closed_form(
    attack: MinimumNormAttack, classes: int, shape: tuple[int, ...], n: int
) -> None:
    net = linear(shape, classes, seed=n)
    x = middling(net, n, shape, seed=n)
    y = label_of(net, x)
    found = attack.run(net, x, y)
    least = nearest(net, x, y, attack.norm)
    assert found.broken.all() and torch.equal(label_of(net, found.x_adv) != y, found.broken)
    assert (found.distance.numpy() >= least * (1 - 1e-4)).all()
    assert (found.distance.numpy() <= least * CLOSE[attack.norm] + 1e-6).all()


@every_attack
def test_with_an_epsilon_broken_says_what_lies_within(attack: MinimumNormAttack) -> None:
    net = linear((1, 4, 4), 3)
    x = middling(net, 16, (1, 4, 4))
    y = label_of(net, x)
    least = nearest(net, x, y, attack.norm)
    epsilon = float(np.median(least))
    found = replace(attack, epsilon=epsilon).run(net, x, y)
    assert found.distance.max() <= epsilon + 1e-6
    assert not found.broken[torch.from_numpy(least > epsilon)].any()
    assert found.broken[torch.from_numpy(least * CLOSE[attack.norm] < epsilon)].all()


@every_attack
def test_stopping_inside_breaks_the_same_images_for_less(attack: MinimumNormAttack) -> None:
    net = linear((1, 4, 4), 3)
    x = middling(net, 16, (1, 4, 4))
    y = label_of(net, x)
    epsilon = 1.3 * float(np.median(nearest(net, x, y, attack.norm)))
    nearer = replace(attack, epsilon=epsilon).run(net, x, y)
    sooner = replace(attack, epsilon=epsilon, stop_inside=True).run(net, x, y)
    assert torch.equal(sooner.broken, nearer.broken)
    assert sooner.cost.forward < nearer.cost.forward


@every_attack
def test_an_image_that_is_wrong_from_the_start_is_at_distance_0(attack: MinimumNormAttack) -> None:
    net = linear((1, 4, 4), 3)
    x = middling(net, 4, (1, 4, 4))
    y = label_of(net, x)
    y[2] = (y[2] + 1) % 3
    found = attack.run(net, x, y)
    assert found.distance[2] == 0 and found.broken[2] and torch.equal(found.x_adv[2], x[2])
    assert found.distance[[0, 1, 3]].min() > 0


@every_attack
def test_an_image_fares_as_it_does_alone(attack: MinimumNormAttack) -> None:
    net = linear((1, 4, 4), 3, seed=3)
    x = middling(net, 2, (1, 4, 4), seed=5)
    y, index = label_of(net, x), torch.arange(2)
    together = attack.run(net, x, y)
    alone = [attack.run(net, x[i], y[i], index=i).distance for i in index.split(1)]
    torch.testing.assert_close(torch.cat(alone), together.distance, rtol=5e-3, atol=1e-6)
