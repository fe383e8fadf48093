"""Soundness of an evaluation that was forged, grows with epsilon, is of one step or of nothing.

Models made to deceive are in test_attack_soundness_broken.py, honest ones in the file beside it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_models import Deceiver
from torch import nn

from purpleteam.attacks import FGSM, PGD, RobustEvaluation, Soundness, evaluate, soundness_of
from purpleteam.attacks.evasion import ATTACKS, EvasionAttack
from purpleteam.core.statistics import Rate
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.models import RECIPES, train

ATTACK = PGD(epsilon=0.1, steps=20)
L2 = PGD(norm="l2", epsilon=1.0, steps=20)


def verdict(model: nn.Module, images: ImageSet, *attacks: EvasionAttack) -> Soundness:
    return soundness_of(model, images, attacks, [evaluate(model, images, *attacks)])


def test_the_evaluation_of_an_honest_model_is_not_thrown_away(
    standard: nn.Module, hardened: nn.Module, images: ImageSet
) -> None:
    for model, attack in ((standard, ATTACK), (hardened, L2)):
        found = verdict(model, images, attack)
        assert found.verdict != "not_established", found.reasons
        assert found.checks["zero_gradients"] == found.checks["steps_that_do_not_climb"] == 0


def test_a_net_with_batch_norm_is_sound_and_left_as_it_was(
    digits: Dataset, images: ImageSet
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 8, 5, 2, 2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(1568, 10),
        )
    train(net, digits.train, digits.validation, RECIPES["plain"](epochs=2), seed=0)
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = verdict(net, images, ATTACKS["ladder"](epsilon=0.05))
    assert (found.verdict, found.reasons) == ("sound", ())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net.training


def test_one_step_alone_is_weak(hardened: nn.Module, images: ImageSet) -> None:
    found = verdict(hardened, images, FGSM(epsilon=0.03))
    assert found.verdict == "weak" and found.checks["most_steps"] == 1
    assert any("1 step" in reason for reason in found.reasons)


def forged(found: RobustEvaluation, x_adv: np.ndarray) -> RobustEvaluation:
    return replace(found, x_adv=x_adv.astype(np.float32))


@pytest.mark.parametrize(("attack", "share"), [(ATTACK, 1.0), (L2, 28.0)], ids=["linf", "l2"])
def test_an_example_just_beyond_its_ball_establishes_nothing(
    standard: nn.Module, images: ImageSet, attack: PGD, share: float
) -> None:
    images = images.first(12)
    honest = evaluate(standard, images, attack)
    x_adv = honest.x_adv.copy()
    towards = 1 - 2 * (images.images[3] > 127).astype(np.float32)  # every pixel, into the range
    x_adv[3] = images.images[3] / np.float32(255) + 1.01 * attack.epsilon / share * towards
    found = soundness_of(standard, images, [attack], [forged(honest, x_adv)])
    assert found.verdict == "not_established"
    assert found.checks["beyond_ball_or_range"] == pytest.approx(0.01 * attack.epsilon, rel=0.01)


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf")])
def test_an_example_outside_the_range_establishes_nothing(
    standard: nn.Module, images: ImageSet, value: float
) -> None:
    images = images.first(12)
    honest = evaluate(standard, images, ATTACK)
    x_adv = honest.x_adv.copy()
    x_adv[0, 0, 0, 0] = value
    found = soundness_of(standard, images, [ATTACK], [forged(honest, x_adv)])
    assert found.verdict == "not_established"


def growing(found: RobustEvaluation, counts: Sequence[int]) -> list[RobustEvaluation]:
    return [replace(found, robust_accuracy=Rate.of(count, 60)) for count in counts]


def test_robust_accuracy_that_grows_with_epsilon_establishes_nothing(
    standard: nn.Module, images: ImageSet
) -> None:
    images = images.first(12)
    honest = evaluate(standard, images, ATTACK)
    found = soundness_of(standard, images, [ATTACK], growing(honest, [30, 20, 25, 10]))
    assert found.verdict == "not_established"
    assert found.checks["largest_rise_over_epsilon"] == pytest.approx(5 / 60)
    steady = soundness_of(standard, images, [ATTACK], growing(honest, [30, 20, 20]))
    assert steady.verdict != "not_established" and steady.checks["largest_rise_over_epsilon"] == 0


def test_where_nothing_is_right_when_clean_nothing_is_established(images: ImageSet) -> None:
    no_zeros = images.take(np.flatnonzero(images.labels != 0))
    always_zero = Deceiver(nn.Identity(), lambda _, x: torch.eye(10)[[0] * len(x)])
    found = verdict(always_zero, no_zeros, ATTACK)
    assert found.verdict == "not_established" and "nothing to attack" in found.reasons[0]


def test_the_verdict_becomes_plain_json(standard: nn.Module, images: ImageSet) -> None:
    found = verdict(standard, images.first(12), ATTACK)
    assert json.loads(json.dumps(found.to_json()))["verdict"] == found.verdict
