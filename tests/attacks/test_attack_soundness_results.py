"""Soundness sees results that are not what they say: miscounted, out of the ball, masked apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_models import Deceiver
from soundness_models import honest, small_digits
from torch import nn

from purpleteam.attacks import PGD, RobustEvaluation, Soundness, evaluate, soundness_of
from purpleteam.attacks.evasion import ATTACKS
from purpleteam.data.images import ImageSet

ATTACK = PGD(epsilon=0.06, steps=20)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return small_digits().test.first(60)


@pytest.fixture(scope="module")
def evaluation(images: ImageSet) -> RobustEvaluation:
    return evaluate(honest("standard"), images, ATTACK)


def judged(images: ImageSet, *evaluations: RobustEvaluation) -> Soundness:
    return soundness_of(honest("standard"), images, [ATTACK], evaluations)


def test_an_example_that_was_found_and_not_counted_is_a_silent_success(
    images: ImageSet, evaluation: RobustEvaluation
) -> None:
    assert judged(images, evaluation).checks["silent_successes"] == 0
    broken = np.flatnonzero(evaluation.broken_by == 0)[:3]
    uncounted = evaluation.broken_by.copy()
    uncounted[broken] = -1
    found = judged(images, replace(evaluation, broken_by=uncounted))
    assert found.verdict == "not_established" and found.checks["silent_successes"] == 3
    assert any("err, uncounted, on 3 of 60" in reason for reason in found.reasons)


def test_an_example_that_was_counted_and_does_not_err_is_told(
    images: ImageSet, evaluation: RobustEvaluation
) -> None:
    standing = np.flatnonzero(evaluation.robust)[:4]
    claimed = evaluation.broken_by.copy()
    claimed[standing] = 0
    found = judged(images, replace(evaluation, broken_by=claimed))
    assert found.verdict == "not_established" and found.checks["claimed_successes"] == 4


def test_examples_on_the_boundary_are_no_miscount(images: ImageSet) -> None:
    nearest = ATTACKS["deepfool"](norm="linf", epsilon=0.1)
    found = evaluate(honest("standard"), images.first(20), nearest)
    verdict = soundness_of(honest("standard"), images.first(20), [nearest], [found])
    assert verdict.checks["claimed_successes"] == 0 and verdict.verdict != "not_established"


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_rounding_in_a_projection_is_within_what_is_allowed(images: ImageSet, norm: str) -> None:
    epsilon = {"linf": 0.3, "l2": 2.0, "l1": 15.0}[norm]
    attack = PGD(norm=norm, epsilon=epsilon, steps=10)  # type: ignore[arg-type]
    found = evaluate(honest("standard"), images, attack)
    verdict = soundness_of(honest("standard"), images, [attack], [found])
    assert verdict.checks["beyond_ball_or_range"] < 1e-4
    assert not any("leaves its ball" in reason for reason in verdict.reasons)


def test_the_verdict_measures_by_how_much_a_number_is_too_high(
    images: ImageSet, evaluation: RobustEvaluation
) -> None:
    found = judged(images, evaluation)
    strong = evaluate(
        honest("standard"), images, ATTACK, ATTACKS["apgd_dlr"](epsilon=0.06, steps=40)
    )
    truth = evaluation.robust_accuracy.value - strong.robust_accuracy.value
    assert found.overstates.low <= truth <= found.overstates.high
    assert found.overstates.value == pytest.approx(truth, abs=0.04)
    assert found.cost["forward"] > 0 and found.cost["backward"] > 0


def test_what_the_check_broke_lies_in_the_ball_and_errs(
    images: ImageSet, evaluation: RobustEvaluation
) -> None:
    net = honest("standard")
    idle = evaluate(net, images, PGD(epsilon=0.06, steps=20, step_size=1e-6))
    found = soundness_of(net, images, [PGD(epsilon=0.06, steps=20, step_size=1e-6)], [idle])
    counted = idle.counting(found.breaks)
    fell = counted.broken_by > 0
    assert counted.robust_accuracy.value == idle.robust_accuracy.value - found.overstates.value
    assert fell.sum() == len(found.breaks.rows) > 20 and found.direction == "too_high"
    moved = np.abs(counted.x_adv - images.images / np.float32(255))
    assert moved.max() <= 0.06 + 1e-6
    x_adv = torch.from_numpy(counted.x_adv).permute(0, 3, 1, 2)
    with torch.no_grad():
        errs = net(x_adv).argmax(1).numpy() != images.labels
    assert errs[counted.broken_by >= 0].all()
    assert all(counted.rungs[place].startswith("soundness/") for place in counted.broken_by[fell])


def test_a_set_that_no_distance_bounds_is_judged_by_its_range_and_count(
    images: ImageSet,
) -> None:
    for name in ("spatial", "corruptions"):
        attack = ATTACKS[name]()
        found = evaluate(honest("standard"), images.first(10), attack)
        verdict = soundness_of(honest("standard"), images.first(10), [attack], [found])
        assert verdict.verdict == "sound" and verdict.checks["beyond_ball_or_range"] <= 0


def test_a_model_that_cannot_compute_in_float64_is_judged_all_the_same(images: ImageSet) -> None:
    def in_float32_alone(net: nn.Module, x: object) -> object:
        if str(getattr(x, "dtype", "")) != "torch.float32":
            raise TypeError("made for float32")
        return net(x)

    model = Deceiver(honest("standard"), in_float32_alone)  # type: ignore[arg-type]
    found = evaluate(model, images.first(20), ATTACK)
    verdict = soundness_of(model, images.first(20), [ATTACK], [found])
    assert "broken_in_float32_alone" not in verdict.checks
    assert verdict.verdict != "not_established"
