"""The base class keeps the promise, whatever a subclass writes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from attack_models import images_of_the_middle, label_of, linear_net
from torch import Tensor

from purpleteam.attacks import ATTACKS, PGD
from purpleteam.attacks.driver import Driver
from purpleteam.attacks.evasion import EvasionAttack
from purpleteam.attacks.norms import Noise
from purpleteam.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Careless(EvasionAttack):
    """Not registered: returns whatever it was told."""

    value: float = 100.0

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        return torch.full_like(x, self.value)


@pytest.mark.parametrize("value", [100.0, -100.0, float("nan"), float("inf")])
def test_a_careless_attack_stays_in_ball_and_range(value: float) -> None:
    net, x = linear_net(), images_of_the_middle(10)
    found = Careless(epsilon=0.45, value=value).run(net, x, label_of(net, x))
    assert found.distance.max() <= 0.45 + 1e-6
    assert found.x_adv.min() >= 0 and found.x_adv.max() <= 1
    assert torch.equal(found.broken, label_of(net, found.x_adv) != label_of(net, x))


@pytest.mark.parametrize("method", ["__call__", "run"])
def test_a_subclass_that_takes_over_the_promise_is_refused(method: str) -> None:
    with pytest.raises(TypeError, match="may only write `perturb`"):
        type("Sly", (EvasionAttack,), {method: lambda: None})


def test_an_unknown_attack_is_met_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown attack 'pdg' \(did you mean 'pgd'\?\)"):
        ATTACKS["pdg"]


@pytest.mark.parametrize("step_size", [0.0, -0.1, float("nan"), float("inf")])
def test_a_step_of_no_length_is_refused(step_size: float) -> None:
    with pytest.raises(ValueError, match="step_size must be above 0"):
        PGD(step_size=step_size)


def test_an_unknown_norm_is_refused_when_the_attack_is_made() -> None:
    with pytest.raises(ValueError, match="unknown norm 'linff'"):
        PGD(norm="linff")  # type: ignore[arg-type]


def test_another_seed_makes_other_images() -> None:
    net, x = linear_net(), images_of_the_middle(4)
    y = label_of(net, x)
    attack = PGD(epsilon=1e-4, steps=1, step_size=1e-6)
    assert not torch.equal(attack(net, x, y, seed=0), attack(net, x, y, seed=1))


def test_a_restart_is_spent_only_on_what_still_stands() -> None:
    net, x = linear_net(), images_of_the_middle(4)
    y = label_of(net, x)
    y[0] = 1 - y[0]
    once = PGD(epsilon=1e-4, steps=2).run(net, x, y).cost.backward
    twice = PGD(epsilon=1e-4, steps=2, restarts=2).run(net, x, y).cost.backward
    assert (once, twice) == (4 + 3, 4 + 3 + 3 + 3)
