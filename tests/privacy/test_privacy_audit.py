"""The audit never accuses a correct training, and always one with a planted bug."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest
import torch
from torch import nn

from purpleteam.core.errors import Refused, UsageError
from purpleteam.data.images import Dataset
from purpleteam.defences.training.dp_sgd import DPSGD
from purpleteam.models.architectures import initialise
from purpleteam.privacy.audit import Audit, Bug, audit

RECIPE = DPSGD(epsilon=3.0, epochs=8, batch_size=300)


def linear(seed: int = 0) -> nn.Module:
    def made(*_: object) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

    return initialise(made, (1, 28, 28), 10, seed)


@pytest.fixture(scope="module")
def audits(few: Dataset) -> list[Audit]:
    return [audit(RECIPE, linear(seed), few, seed=seed) for seed in range(20)]


def test_over_twenty_seeds_it_is_never_above_the_accountant(audits: list[Audit]) -> None:
    assert all(one.holds for one in audits)
    assert all(2.9 < one.epsilon_upper <= 3.0 for one in audits)
    for one in audits:
        one.check()


def test_it_sees_that_something_is_leaked_at_all(audits: list[Audit]) -> None:
    assert sum(one.epsilon_lower > 0.1 for one in audits) > 15
    assert all(one.right > 270 for one in audits)  # of 500: chance is 250 +- 11


@pytest.mark.parametrize("bug", get_args(Bug))
@pytest.mark.parametrize("seed", range(5))
def test_a_planted_bug_is_an_error_each_time(few: Dataset, bug: Bug, seed: int) -> None:
    found = audit(RECIPE, linear(seed), few, seed=seed, bug=bug)
    assert found.epsilon_lower > found.epsilon_upper
    with pytest.raises(
        Refused, match=r"at least 3\.\d+ \(99\.9% confidence\).* says 2\.9"
    ) as caught:
        found.check()
    assert "\n" not in str(caught.value)


def test_it_is_a_pure_function_of_the_seed(few: Dataset, audits: list[Audit]) -> None:
    assert audit(RECIPE, linear(0), few, seed=0) == audits[0]
    assert len({one.right for one in audits}) > 5


def test_a_larger_budget_shows_in_the_lower_bound(few: Dataset, audits: list[Audit]) -> None:
    loose = dataclasses.replace(RECIPE, epsilon=8.0)
    assert audit(loose, linear(), few).epsilon_lower > audits[0].epsilon_lower


def test_any_net_of_ours_can_be_audited(few: Dataset) -> None:
    from purpleteam.models import build

    net = build("small_cnn", (1, 28, 28), 10, seed=0)
    before = torch.cat([one.detach().flatten().clone() for one in net.parameters()])
    found = audit(dataclasses.replace(RECIPE, epochs=4), net, few, bug="clipping left out")
    assert not found.holds
    assert not torch.equal(before, torch.cat([one.flatten() for one in net.parameters()]))


@pytest.mark.parametrize("guesses", [0, 3, 1002])
def test_an_odd_number_of_guesses_is_refused(few: Dataset, guesses: int) -> None:
    with pytest.raises(UsageError, match=f"from 2 to 1000 canaries, not {guesses}"):
        audit(RECIPE, linear(), few, guesses=guesses)


def test_more_canaries_than_weights_are_refused(few: Dataset) -> None:
    with pytest.raises(UsageError, match="8000 canaries need as many weights; the net has 7850"):
        audit(RECIPE, linear(), few, canaries=8000)
