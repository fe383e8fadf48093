"""The reports' defences, pixel by pixel: what they learnt from, and how far it truly was."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from purpleteam.assignment.reports import DefenceA, DefenceB, fgsm_set
from purpleteam.attacks import PGD, evaluate
from purpleteam.core.errors import UsageError
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.defences import DEFENCES, Hardening
from purpleteam.defences.evaluate import transfer_accuracy
from purpleteam.models import Training, build


class TwoPixels(nn.Module):
    """Says 1 where the second pixel is the brighter; the gradient pushes the two apart."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) * torch.tensor([1.0, 1.0])


def two(first: int, second: int, *, label: int) -> ImageSet:
    return ImageSet(np.array([[[[first], [second]]]], np.uint8), np.array([label], np.int64))


def pixels(images: ImageSet) -> list[int]:
    found: list[int] = images.images.flatten().tolist()
    return found


def test_report_b_wraps_what_leaves_the_range_around() -> None:
    # True label 0: the step lowers the first pixel by 25.5 and raises the second by as much.
    assert pixels(fgsm_set(TwoPixels(), two(0, 255, label=0), 0.1, wrap=True)) == [231, 24]
    assert pixels(fgsm_set(TwoPixels(), two(100, 100, label=0), 0.1, wrap=True)) == [74, 125]


def test_the_true_distance_of_report_b_is_nine_times_its_epsilon() -> None:
    clean = two(0, 255, label=0)
    moved = np.abs(np.int16(pixels(fgsm_set(TwoPixels(), clean, 0.1, wrap=True))) - pixels(clean))
    assert moved.tolist() == [231, 231] and moved.max() / 255 == pytest.approx(0.906, abs=1e-3)


def test_report_a_clips_to_the_range_and_truncates() -> None:
    assert pixels(fgsm_set(TwoPixels(), two(0, 255, label=0), 0.3)) == [0, 255]
    assert pixels(fgsm_set(TwoPixels(), two(100, 100, label=0), 0.3)) == [23, 176]


def test_both_step_also_on_images_that_the_model_gets_wrong() -> None:
    wrong = two(100, 120, label=0)  # says 1
    assert pixels(fgsm_set(TwoPixels(), wrong, 0.1)) == [74, 145]
    assert pixels(fgsm_set(TwoPixels(), wrong, 0.1, wrap=True)) == [74, 145]


def test_labels_and_order_stay_and_the_clean_set_is_left_alone(
    baseline: nn.Module, digits: Dataset
) -> None:
    clean = digits.train.first(501)  # one more than a batch
    before = clean.images.copy()
    for make in (fgsm_set, partial(fgsm_set, wrap=True)):
        made = make(baseline, clean, 0.3)
        assert np.array_equal(made.labels, clean.labels) and made.images.shape == before.shape
        assert np.array_equal(made.images[490:], make(baseline, clean.part(490), 0.3).images)
    assert np.array_equal(clean.images, before)


def test_report_a_learns_from_clean_and_adversarial_images() -> None:
    clean, adversarial = two(1, 2, label=0), two(3, 4, label=1)
    made = DefenceA().training_set(clean, adversarial)
    assert pixels(made) == [1, 2, 3, 4] and made.labels.tolist() == [0, 1]


def test_report_b_learns_from_the_adversarial_images_twice_and_from_no_clean_one() -> None:
    clean, adversarial = two(1, 2, label=0), two(3, 4, label=1)
    made = DefenceB().training_set(clean, adversarial)
    assert pixels(made) == [3, 4, 3, 4] and made.labels.tolist() == [1, 1]


@pytest.mark.parametrize("name", ["report_a", "report_b"])
def test_without_a_baseline_the_error_is_one_line_that_says_what_to_give(
    name: str, digits: Dataset, baseline: nn.Module
) -> None:
    with pytest.raises(UsageError, match=f"recipe '{name}' attacks a baseline .* give --model"):
        DEFENCES[name]().harden(Hardening(net=baseline, dataset=digits))


def test_the_reports_own_settings_are_the_defaults() -> None:
    assert (DefenceA().epochs, DefenceA().epsilon) == (5, 0.3)
    assert (DefenceB().epochs, DefenceB().epsilon) == (10, 0.1)
    assert {DefenceA().schedule, DefenceB().schedule} == {"constant"}


@pytest.fixture(scope="module")
def report_a(baseline: nn.Module, digits: Dataset) -> Training:
    net = build("small_cnn", (1, 28, 28), 10, seed=1)
    recipe = DEFENCES["report_a"](epochs=5, epsilon=0.1, learning_rate=3e-3)
    return recipe.harden(Hardening(net=net, dataset=digits, baseline=baseline))


def test_what_report_a_calls_robust_falls_when_it_is_attacked_itself(
    report_a: Training, baseline: nn.Module, digits: Dataset
) -> None:
    test = digits.test.first(100)
    transfer = transfer_accuracy(report_a.module, fgsm_set(baseline, test, 0.1), test, {}).value
    itself = evaluate(report_a.module, test, PGD(epsilon=0.1, steps=20)).robust_accuracy
    assert transfer.value > 0.75 and itself.value < 0.25
