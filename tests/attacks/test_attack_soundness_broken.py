"""Soundness fires on models made to deceive, each indicator on what it is meant for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from attack_models import Answer, Deceiver
from soundness_models import (
    DOUBTFUL,
    GRADIENTLESS,
    MASKED,
    Ramp,
    colour_net,
    honest,
    labelled_by_colour,
    small_digits,
)
from test_attack_soundness_honest import verdict
from torch import nn

from purpleteam.attacks import PGD, RobustEvaluation, Soundness, curve, evaluate, soundness_of
from purpleteam.attacks.evasion import ATTACKS
from purpleteam.core.errors import UsageError
from purpleteam.data.images import Dataset, ImageSet

LINF = PGD(epsilon=0.08, steps=20)
L2 = PGD(norm="l2", epsilon=0.5, steps=20)
ONE_OF_EACH_KIND = (
    *("detached", "random gradient", "quantised input", "finely rounded logits"),
    *("temperature 1000", "saturated tanh", "shattered gradient"),
)
"""Of the masks: no gradient, a wrong one, rounded input and output, saturated, shattered."""


def behind(name: str, net: nn.Module | None = None) -> Deceiver:
    return Deceiver(net or honest("standard"), (MASKED | DOUBTFUL | GRADIENTLESS)[name])


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return small_digits().test.first(60)


Checked = Callable[[str], tuple[RobustEvaluation, Soundness]]


@pytest.fixture(scope="module")
def checked() -> Checked:
    """Return a function that attacks the standard net behind that deception, each once."""

    @cache
    def check(name: str) -> tuple[RobustEvaluation, Soundness]:
        images = small_digits().test.first(36 if name in MASKED else 60)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            evaluation = evaluate(behind(name), images, LINF)
            return evaluation, soundness_of(behind(name), images, [LINF], [evaluation])

    return check


@pytest.mark.parametrize("name", MASKED)
def test_a_masked_net_looks_robust_and_establishes_nothing(checked: Checked, name: str) -> None:
    evaluation, soundness = checked(name)
    assert evaluation.robust_accuracy.value > 0.6
    assert soundness.verdict == "not_established"


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_masks_are_seen_on_another_net_and_few_images(images: ImageSet, name: str) -> None:
    found = verdict(behind(name, honest("batch norm")), images.first(12), L2)
    assert found.verdict != "sound"
    assert found.verdict == "not_established" or name == "shattered gradient"  # coarse for l2


@pytest.mark.parametrize("name", GRADIENTLESS)
def test_a_net_without_a_gradient_is_no_subject_of_an_attack_that_follows_one(
    images: ImageSet, name: str
) -> None:
    with pytest.raises(UsageError, match=r"no gradient of the model reaches .* square"):
        evaluate(behind(name), images, LINF)
    found = verdict(behind(name), images, ATTACKS["square"](epsilon=0.1, queries=100))
    assert found.verdict != "sound"


@pytest.mark.parametrize("name", DOUBTFUL)
def test_what_flattens_a_loss_or_changes_its_answers_is_never_sound(
    checked: Checked, name: str
) -> None:
    assert checked(name)[1].verdict != "sound"


@pytest.mark.parametrize("name", ["softmax", "random layer"])
def test_probabilities_and_a_random_output_are_weak_and_no_more(
    checked: Checked, name: str
) -> None:
    assert checked(name)[1].verdict == "weak"


@pytest.mark.parametrize(
    "name", ["detached", "NaN gradient", "quantised input", "rounded logits", "reversed gradient"]
)
def test_masks_are_seen_on_small_colour_images(name: str) -> None:
    images = labelled_by_colour()
    found = verdict(behind(name, colour_net()), images.first(10), PGD(epsilon=0.05, steps=20))
    assert found.verdict == "not_established"


INDICATORS: list[tuple[str, str, float, str]] = [
    ("detached", "masked_gradients", 1.0, "zero or NaN on 100%"),
    ("NaN gradient", "masked_gradients", 1.0, "zero or NaN on 100%"),
    ("rounded logits", "masked_gradients", 1.0, "zero or NaN on 100%"),
    ("detached", "zero_gradients", 1.0, "zero or NaN on 100%"),
    ("NaN gradient", "zero_gradients", 1.0, "zero or NaN on 100%"),
    ("quantised input", "zero_gradients", 1.0, "zero or NaN on 100%"),
    ("temperature 1000", "zero_gradients", 0.5, "zero or NaN on "),
    ("saturated sigmoid", "masked_gradients", 0.3, "zero or NaN on "),
    ("temperature 10000", "zero_gradients", 0.9, "the margin's breaks "),
    ("reversed gradient", "steps_that_do_not_climb", 1.0, "raises no loss on 100%"),
    ("random gradient", "steps_that_do_not_climb", 0.3, "raises no loss on "),
    ("shattered gradient", "steps_that_do_not_climb", 0.5, "raises no loss on "),
    ("noise-like scores", "unstable_predictions", 0.2, "it is noise"),
    ("softmax", "probabilities", 1, "probabilities, not logits"),
    ("softmax with temperature", "probabilities", 1, "probabilities, not logits"),
    ("sigmoid", "probabilities", 1, "probabilities, not logits"),
    ("random layer", "randomised", 1, "from call to call"),
    ("dropout", "randomised", 1, "from call to call"),
    ("scores of the batch", "depends_on_neighbours", 1, "the others in its batch"),
    ("optimising", "optimises", 1, "computes gradients while it answers"),
    ("detached", "broken_by_black_box_only", 5, "attacks without gradients break "),
    ("temperature 1000", "broken_by_more_steps", 20, "more steps break "),
    ("zero gradient", "survived_unbounded", 25, "an unbounded attack leaves "),
    ("detached", "survived_unbounded", 5, "an unbounded attack leaves "),
    ("reversed gradient", "survived_unbounded", 5, "an unbounded attack leaves "),
]


@pytest.mark.parametrize(("name", "check", "least", "reason"), INDICATORS)
def test_each_indicator_fires_on_the_model_made_for_it(
    checked: Checked, name: str, check: str, least: float, reason: str
) -> None:
    _, soundness = checked(name)
    assert soundness.checks[check] >= least
    assert any(reason in one for one in soundness.reasons)


def test_few_values_of_the_scores_are_seen_through_a_straight_through_gradient(
    checked: Checked,
) -> None:
    _, soundness = checked("straight-through rounding of logits")
    assert soundness.checks["distinct_scores"] < 0.1
    assert any("they are rounded" in reason for reason in soundness.reasons)


def test_a_loss_that_still_rises_at_the_last_step_is_seen(images: ImageSet) -> None:
    short = PGD(epsilon=0.1, steps=20, step_size=0.0015, random_start=False)
    found = verdict(honest("adversarially trained"), images, short)
    assert found.checks["rise_by_more_steps"] > 0.25 and found.verdict != "sound"


@pytest.mark.parametrize(("norm", "epsilon"), [("l2", 0.5), ("l1", 2.25)])
def test_a_net_that_is_flat_around_its_images_is_seen_from_another_class(
    images: ImageSet, norm: str, epsilon: float
) -> None:
    """A pixel must pass the middle before it counts: no gradient at an image says so."""
    flat = nn.Sequential(Ramp(0.4, 0.6), *honest("large margin"))
    found = verdict(flat, images, PGD(norm=norm, epsilon=epsilon, steps=40))
    assert found.checks["broken_by_more_steps"] < 5 and found.checks["masked_gradients"] == 0
    assert found.checks["broken_from_afar"] > 10 and found.verdict != "sound"
    assert any("from images of other classes" in reason for reason in found.reasons)


def test_an_attack_that_was_never_begun_establishes_nothing(images: ImageSet) -> None:
    idle = PGD(epsilon=0.1, steps=20, step_size=1e-6, random_start=False)
    found = verdict(honest("standard"), images, idle)
    assert found.verdict == "not_established" and found.checks["broken_by_fgsm_only"] > 10
    assert any("a single step breaks " in reason for reason in found.reasons)


@pytest.mark.parametrize(("name", "options"), [("square", {"queries": 60}), ("transfer", {})])
def test_a_ladder_that_follows_no_gradient_is_at_best_weak(
    standard: nn.Module, digits: Dataset, name: str, options: dict[str, int]
) -> None:
    images = digits.test.first(20)  # as large as the zoo's, one of which transfers
    found = verdict(standard, images, ATTACKS[name](epsilon=0.03, **options))
    assert found.verdict == "weak"
    assert any("follows gradients" in reason for reason in found.reasons)


def test_what_the_ladders_own_black_box_breaks_late_is_told(images: ImageSet) -> None:
    images = images.first(24)
    ladder = [PGD(epsilon=0.1, steps=20), ATTACKS["square"](epsilon=0.1, queries=200)]
    found = verdict(behind("detached"), images, *ladder)
    assert found.checks["broken_by_black_box_rungs"] > 0.3
    assert any("that gradients left" in reason for reason in found.reasons)


def test_where_nothing_stands_no_chance_was_missed(images: ImageSet) -> None:
    images = images.first(24)
    ladder = [PGD(epsilon=0.4, steps=20), ATTACKS["square"](epsilon=0.4, queries=200)]
    found = verdict(behind("detached"), images, *ladder)
    assert found.checks["masked_gradients"] == 1
    assert (found.verdict, found.direction, found.reasons) == ("sound", None, ())


def test_a_curve_is_judged_where_images_still_stand(images: ImageSet) -> None:
    images = images.first(24)
    ladder = [PGD(epsilon=0.4, steps=20), ATTACKS["square"](epsilon=0.4, queries=200)]
    points = curve(behind("detached"), images, ladder, [0.03, 0.4])
    found = soundness_of(behind("detached"), images, ladder, list(points.values()))
    assert found.verdict == "not_established"


class App(nn.Module):
    """Answers and tells nothing else."""

    differentiable = False
    classes = 10

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer
        self.asked = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.asked += len(x)
        with torch.no_grad():
            return self.answer(honest("standard"), x)


def test_an_app_is_asked_little_and_its_verdict_is_weak(images: ImageSet) -> None:
    app = App(lambda net, x: net(x))
    attack = ATTACKS["square"](epsilon=0.05, queries=20)
    evaluation = evaluate(app, images, attack)
    app.asked = 0
    found = soundness_of(app, images, [attack], [evaluation])
    assert found.verdict == "weak" and app.asked < 50
    assert any("only black-box attacks were possible" in reason for reason in found.reasons)
