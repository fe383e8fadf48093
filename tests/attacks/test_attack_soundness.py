"""Soundness: each check fires on a model or evaluation made to deceive, and only there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_models import Answer, Deceiver, with_gradient_times
from torch import Tensor, nn

from purpleteam.attacks import FGSM, PGD, RobustEvaluation, Soundness, evaluate, soundness_of
from purpleteam.attacks.evasion import ATTACKS, EvasionAttack
from purpleteam.core.statistics import Rate
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.models import RECIPES, train

ATTACK = PGD(epsilon=0.1, steps=20)
L2 = PGD(norm="l2", epsilon=1.0, steps=20)
DECEPTIONS: dict[str, Answer] = {
    "no gradient": lambda net, x: net(x.detach()) + 0 * net(x),
    "NaN gradient": with_gradient_times(float("nan")),
    "quantised input": lambda net, x: net((x * 16).round() / 16),
    "very high temperature": lambda net, x: 1000 * net(x),
    "reversed gradient": with_gradient_times(-1.0),
    "shattered gradient": lambda net, x: net(x + 0.05 * torch.sin(500 * x)),
}


def verdict(model: nn.Module, images: ImageSet, *attacks: EvasionAttack) -> Soundness:
    return soundness_of(model, images, attacks, [evaluate(model, images, *attacks)])


@pytest.mark.parametrize("name", DECEPTIONS)
def test_masked_gradients_establish_nothing(
    standard: nn.Module, images: ImageSet, name: str
) -> None:
    model = Deceiver(standard, DECEPTIONS[name])
    assert evaluate(model, images, ATTACK).robust_accuracy.value > 0.7  # it looks robust
    assert verdict(model, images, ATTACK).verdict == "not_established"


@pytest.mark.parametrize(
    ("name", "check", "least", "reason"),
    [
        ("no gradient", "zero_gradients", 1.0, "zero or NaN on 100%"),
        ("NaN gradient", "zero_gradients", 1.0, "zero or NaN on 100%"),
        ("quantised input", "zero_gradients", 1.0, "zero or NaN on 100%"),
        ("very high temperature", "zero_gradients", 0.5, "zero or NaN on "),
        ("reversed gradient", "steps_that_do_not_climb", 0.95, "raises no loss on "),
        ("shattered gradient", "steps_that_do_not_climb", 0.5, "raises no loss on "),
        ("reversed gradient", "survived_unbounded", 5, "unbounded attack leaves "),
        ("no gradient", "survived_unbounded", 5, "unbounded attack leaves "),
    ],
)
def test_each_deception_is_found_by_the_check_that_is_meant_for_it(
    standard: nn.Module, images: ImageSet, name: str, check: str, least: float, reason: str
) -> None:
    found = verdict(Deceiver(standard, DECEPTIONS[name]), images, ATTACK)
    assert found.checks[check] >= least
    assert any(reason in one for one in found.reasons)


@pytest.mark.parametrize("attack", [ATTACK, L2], ids=["linf", "l2"])
def test_the_evaluation_of_an_honest_model_is_not_thrown_away(
    standard: nn.Module, hardened: nn.Module, images: ImageSet, attack: PGD
) -> None:
    for model in (standard, hardened):
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


def test_probabilities_for_logits_are_weak(standard: nn.Module, images: ImageSet) -> None:
    found = verdict(Deceiver(standard, lambda net, x: net(x).softmax(1)), images, ATTACK)
    assert found.checks["probabilities"] and found.verdict == "weak"
    assert "probabilities" in " ".join(found.reasons)


def test_an_output_that_changes_from_call_to_call_is_weak(
    standard: nn.Module, images: ImageSet
) -> None:
    def noisy(net: nn.Module, x: Tensor) -> Tensor:
        return net(x + 0.02 * torch.randn_like(x))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = verdict(Deceiver(standard, noisy), images, ATTACK)
    assert found.checks["randomised"] and found.verdict == "weak"
    assert any("call to call" in reason for reason in found.reasons)


def test_one_step_alone_is_weak(hardened: nn.Module, images: ImageSet) -> None:
    found = verdict(hardened, images, FGSM(epsilon=0.03))
    assert found.verdict == "weak" and found.checks["most_steps"] == 1
    assert any("1 step" in reason for reason in found.reasons)


def test_a_ladder_that_a_single_step_beats_establishes_nothing(
    standard: nn.Module, images: ImageSet
) -> None:
    idle = PGD(epsilon=0.1, steps=20, step_size=1e-6)
    found = verdict(standard, images, idle)
    assert found.checks["broken_by_fgsm_only"] > 10 and found.verdict == "not_established"


def forged(found: RobustEvaluation, x_adv: np.ndarray) -> RobustEvaluation:
    return replace(found, x_adv=x_adv.astype(np.float32))


@pytest.mark.parametrize(("attack", "share"), [(ATTACK, 1.0), (L2, 28.0)], ids=["linf", "l2"])
def test_an_example_just_beyond_its_ball_establishes_nothing(
    standard: nn.Module, images: ImageSet, attack: PGD, share: float
) -> None:
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
    found = verdict(standard, images, ATTACK)
    assert json.loads(json.dumps(found.to_json()))["verdict"] == found.verdict
