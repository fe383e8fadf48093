"""Each threshold of the soundness verdict, from both sides, on a net that reads the brightness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from purpleteam.attacks import PGD, RobustEvaluation, evaluate
from purpleteam.attacks.evasion import ATTACKS
from purpleteam.attacks.soundness import checks, overstatement
from purpleteam.attacks.soundness.case import Case, Doubt, more_than
from purpleteam.core.statistics import Estimate, Rate
from purpleteam.data.images import ImageSet

IDLE = PGD(epsilon=0.1, steps=20, step_size=1e-6, random_start=False)
"""A ladder that finds nothing."""
NEAR, FAR, BRIGHT, DARK = 0.42, 0.2, 0.8, 0.0
"""Brightness of images that a step of 0.1 breaks, of those that it does not, and of others."""


class Brightness(nn.Module):
    """Says 1 where the mean pixel is above a half; `change` says what it makes of the mean."""

    def __init__(self, change: Callable[[Tensor, Tensor], Tensor] = lambda m, _: m) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        value = self.change(x.flatten(1).mean(1), x) - 0.5
        return torch.stack([torch.zeros_like(value), value], 1)


def of_brightness(*groups: tuple[int, float], side: int = 4) -> ImageSet:
    """Return so many plain images of each brightness."""
    values = np.concatenate([np.full(count, value) for count, value in groups])
    pixels = (255 * values).round().astype(np.uint8)[:, None, None, None]
    labels = (pixels[:, 0, 0, 0] > 127).astype(np.int64)
    return ImageSet(np.tile(pixels, (1, side, side, 1)), labels)


def case_of(images: ImageSet, net: nn.Module, attack: PGD = IDLE) -> Case:
    return Case(net, images, [attack], [evaluate(net, images, attack)], 0)


class Observed:
    """What a check measured, and the doubts that follow from it."""

    def __init__(self, check: checks.Check, case: Case) -> None:
        seen = list(check(case))
        self.doubts = [part for part in seen if isinstance(part, Doubt)]
        self.measured = {
            name: value for part in seen if isinstance(part, dict) for name, value in part.items()
        }


def levels(found: Observed, about: str = "") -> list[str]:
    return [doubt.level for doubt in found.doubts if about in doubt.reason]


def expected(count: int, some: int, many: int) -> list[str]:
    return [] if count <= some else ["weak"] if count <= many else ["not_established"]


@pytest.mark.parametrize("fell", [1, 3, 4, 10, 11, 20, 21, 40, 41])
def test_what_a_ladder_left_standing_for_the_check_is_held_against_it(fell: int) -> None:
    net = Brightness()
    case = case_of(of_brightness((fell, NEAR), (60 - fell, FAR), (40, BRIGHT)), net)
    found = Observed(checks.nothing_else_is_stronger, case)
    assert levels(found, "a single step breaks") == expected(fell, 3, 10)
    weak = expected(fell, 3, 100)  # a weak ladder, for gradients find the same
    assert levels(found, "attacks without gradients") == weak
    assert levels(found, "more steps break") == expected(fell, 20, 40)
    assert bool(levels(found, "the loss is still rising")) == (fell <= 20)


@pytest.mark.parametrize(
    ("fell", "steps", "level"),
    [(1, 20, []), (2, 20, ["not_established"]), (2, 9, ["weak"]), (2, 10, ["not_established"])],
)
def test_one_image_alone_is_luck_and_a_short_ladder_merely_weak(
    fell: int, steps: int, level: list[str]
) -> None:
    attack = replace(IDLE, steps=steps)
    case = case_of(of_brightness((fell, NEAR), (10 - fell, FAR)), Brightness(), attack)
    found = Observed(checks.nothing_else_is_stronger, case)
    assert levels(found, "a single step breaks") == level


@pytest.mark.parametrize("fell", [1, 3, 4, 10, 11])
def test_what_gradients_hide_from_the_check_too_is_graver(fell: int) -> None:
    net = Brightness(lambda m, _: m.detach() + 0 * m)
    case = case_of(of_brightness((fell, NEAR), (60 - fell, FAR), (40, BRIGHT)), net)
    found = Observed(checks.nothing_else_is_stronger, case)
    assert levels(found, "attacks without gradients") == expected(fell, 3, 10)


@pytest.mark.parametrize(("brightness", "rises"), [(0.05, False), (0.15, True)])
def test_a_loss_rises_still_where_it_gains_a_quarter_of_the_margin(
    brightness: float, rises: bool
) -> None:
    """By 0.1 of the 0.45 or 0.35 that are left."""
    case = case_of(of_brightness((30, brightness)), Brightness())
    found = Observed(checks.nothing_else_is_stronger, case)
    assert levels(found) == ["weak"] * rises


def blind(m: Tensor, _: Tensor) -> Tensor:
    return torch.where(m < 0.3, m.detach(), m)


def misled(m: Tensor, _: Tensor) -> Tensor:
    return torch.where(m < 0.3, 2 * m.detach() - m, m)


@pytest.mark.parametrize("count", [2, 3])
def test_one_in_twenty_may_withstand_an_attack_without_a_bound(count: int) -> None:
    case = case_of(of_brightness((count, DARK), (50 - count, NEAR)), Brightness(blind))
    found = Observed(checks.unbounded_breaks_everything, case)
    assert found.measured["survived_unbounded"] == count
    assert levels(found) == ["not_established"] * (count > 2)


@pytest.mark.parametrize("count", [5, 6])
def test_one_in_twenty_may_have_no_gradient(count: int) -> None:
    images = of_brightness((count, DARK), (60 - count, NEAR), (40, BRIGHT))
    case = case_of(images, Brightness(blind))
    found = Observed(checks.gradients_are_there, case)
    assert found.measured["masked_gradients"] == count / 100
    assert levels(found) == ["not_established"] * (count > 5)


@pytest.mark.parametrize("count", [5, 6])
def test_one_in_twenty_may_be_so_sure_that_cross_entropy_is_flat(count: int) -> None:
    net = Brightness(lambda m, _: 0.5 + torch.where(m < 0.3, 1000, 1) * (m - 0.5))
    images = of_brightness((count, FAR), (60 - count, NEAR), (40, 0.7))
    case = case_of(images, net)
    found = Observed(checks.gradients_are_there, case)
    assert found.measured == {"zero_gradients": count / 100, "masked_gradients": 0.0}
    assert levels(found) == ["not_established"] * (count > 5)


@pytest.mark.parametrize("fell", [5, 6])
def test_a_flat_cross_entropy_matters_where_one_in_twenty_falls_to_the_margin(fell: int) -> None:
    net = Brightness(lambda m, _: 0.5 + 2000 * (m - 0.5))
    case = case_of(of_brightness((fell, NEAR), (60 - fell, FAR), (40, BRIGHT)), net)
    found = Observed(checks.gradients_are_there, case)
    assert levels(found) == ["not_established"] * (fell > 5)


@pytest.mark.parametrize("count", [5, 6, 20, 21])
def test_a_step_that_does_not_climb_is_rare_or_held_against_the_gradients(count: int) -> None:
    images = of_brightness((count, FAR), (60 - count, NEAR), (40, BRIGHT))
    found = Observed(checks.steps_climb, case_of(images, Brightness(misled)))
    assert found.measured["steps_that_do_not_climb"] == count / 100
    assert levels(found) == expected(count, 5, 20)


@pytest.mark.parametrize(("brightness", "unstable"), [(0.35, False), (0.4, True)])
def test_a_margin_may_change_by_a_tenth_within_a_twentieth_of_the_ball(
    brightness: float, unstable: bool
) -> None:
    """A pixel that moves by 0.0125 on average, of a margin of 0.15 or 0.1."""
    images = of_brightness((100, brightness), side=1)
    found = Observed(
        checks.predictions_are_stable, case_of(images, Brightness(), replace(IDLE, epsilon=0.5))
    )
    assert levels(found) == ["not_established"] * unstable


@pytest.mark.parametrize(("jump", "unstable"), [(0.007, False), (0.014, True)])
def test_a_margin_of_almost_nothing_is_no_measure_of_its_change(
    jump: float, unstable: bool
) -> None:
    """Half the draws jump, by a share of a twentieth of the scores' spread, which is 1."""
    net = Brightness(lambda m, x: m + jump / 2 * torch.sin(1e5 * x[:, 0, 0, 0]).sign())
    images = of_brightness((96, 0.48), (2, 0.0), (2, 1.0))
    found = Observed(checks.predictions_are_stable, case_of(images, net))
    assert levels(found) == ["not_established"] * unstable


@pytest.mark.parametrize("steps", [9, 10])
def test_an_attack_of_ten_steps_is_no_weak_one(steps: int) -> None:
    case = case_of(of_brightness((20, FAR)), Brightness(), replace(IDLE, steps=steps))
    assert levels(Observed(checks.ladder_is_strong, case)) == ["weak"] * (steps < 10)


@pytest.mark.parametrize(("jitter", "randomised"), [(0.7e-5, False), (1.5e-5, True)])
def test_scores_that_change_by_rounding_are_not_random(jitter: float, randomised: bool) -> None:
    calls = iter(range(10**6))
    net = Brightness(lambda m, _: m + jitter * (next(calls) % 2))
    case = case_of(of_brightness((10, 0.0), (10, 1.0)), net)
    assert case.randomised == randomised


@pytest.mark.parametrize(("off", "are"), [(0.7e-3, True), (1.5e-3, False)])
def test_probabilities_add_up_to_one_in_half_precision(off: float, are: bool) -> None:
    assert checks.adds_up(torch.tensor([[0.5, 0.5], [0.25, 0.75 - off]])) == are


@pytest.mark.parametrize(("values", "rounded"), [(9, True), (11, False)])
def test_scores_of_which_a_tenth_differ_are_not_rounded(values: int, rounded: bool) -> None:
    """Ten images of ten classes, a score of the right class that is one of so many values."""
    images = ImageSet((25 * np.arange(10, dtype=np.uint8)).reshape(10, 1, 1, 1), np.arange(10))

    def net(x: Tensor) -> Tensor:
        place = (x.flatten(1)[:, 0] * 10.2).round().long().clamp(0, 9)
        return nn.functional.one_hot(place, 10) * (2.0 + place % (values - 1))[
            :, None
        ] + 0 * x.flatten(1)

    model = nn.Identity()
    model.forward = net  # type: ignore[method-assign]
    case = case_of(images, model)
    assert levels(Observed(checks.outputs_are_logits, case)) == ["weak"] * rounded


def forged(
    images: ImageSet, broken: Sequence[int], brightness: Sequence[float], attack: PGD = IDLE
) -> RobustEvaluation:
    """Return an evaluation whose example of image i has that brightness, broken or not."""
    found = evaluate(Brightness(), images, attack)
    x_adv = found.x_adv.copy()
    x_adv[: len(brightness)] = np.array(brightness, np.float32)[:, None, None, None]
    return replace(found, broken_by=np.array(broken, np.int8), x_adv=x_adv)


@pytest.mark.parametrize(("ahead", "silent"), [(0.7e-5, 0), (1.5e-5, 20)])
def test_an_example_that_is_a_tie_is_no_silent_success(ahead: float, silent: int) -> None:
    images = of_brightness((20, NEAR), (1, 0.0), (1, 1.0))
    found = forged(images, [-1] * 22, [0.5 + ahead] * 20)
    case = Case(Brightness(), images, [IDLE], [found], 0)
    assert Observed(checks.candidates_do_as_counted, case).measured["silent_successes"] == silent


@pytest.mark.parametrize("count", [1, 2, 3])
def test_two_in_a_hundred_may_be_miscounted(count: int) -> None:
    images = of_brightness((100, NEAR))
    found = forged(images, [-1] * 100, [0.6] * count)
    case = Case(Brightness(), images, [IDLE], [found], 0)
    found = Observed(checks.candidates_do_as_counted, case)
    assert levels(found) == ["not_established"] * (count > 2)


@pytest.mark.parametrize("alone", [5, 6])
def test_half_the_examples_may_err_by_rounding_alone(alone: int) -> None:
    net = Brightness(lambda m, _: m + 0.02 * (m.dtype == torch.float32))
    images = of_brightness((10, NEAR))
    found = forged(images, [0] * 10, [0.49] * alone + [0.51] * (10 - alone))
    case = Case(net, images, [IDLE], [found], 0)
    doubts = Observed(checks.candidates_do_as_counted, case).doubts
    assert [one.direction for one in doubts] == ["too_low"] * (alone > 5)


@pytest.mark.parametrize(
    ("norm", "beyond", "feasible"),
    [("linf", 0.9e-6, True), ("linf", 1.5e-6, False), ("l2", 2.2e-6, True), ("l2", 3.5e-6, False)],
)
def test_an_example_may_leave_its_ball_by_rounding(
    norm: str, beyond: float, feasible: bool
) -> None:
    """Rounding of every value: 1.1e-6 in the largest norm, 2.7e-6 for 784 of them in L2."""
    attack = replace(IDLE, norm=norm)
    images = of_brightness((2, DARK), side=28)
    found = evaluate(Brightness(), images, attack)
    x_adv = found.x_adv.copy()
    x_adv[0, 0, 0, 0] = 0.1 + beyond
    case = Case(Brightness(), images, [attack], [replace(found, x_adv=x_adv)], 0)
    assert (levels(Observed(checks.candidates_are_feasible, case)) == []) == feasible


@pytest.mark.parametrize("more", [9, 11])
def test_robust_accuracy_may_grow_by_a_point_with_epsilon(more: int) -> None:
    images = of_brightness((10, FAR))
    found = evaluate(Brightness(), images, IDLE)
    rising = [replace(found, robust_accuracy=Rate.of(500 + add, 1000)) for add in (0, more)]
    case = Case(Brightness(), images, [IDLE], rising, 0)
    assert levels(Observed(checks.stronger_with_epsilon, case)) == ["not_established"] * (more > 10)


@pytest.mark.parametrize("late", [5, 6])
def test_one_in_twenty_may_fall_to_a_late_attack_without_gradients(late: int) -> None:
    images = of_brightness((100, FAR))
    ladder = [IDLE, ATTACKS["square"](epsilon=0.1, queries=2)]
    found = evaluate(Brightness(), images, *ladder)
    broken_by = np.array([1] * late + [-1] * (100 - late), np.int8)
    case = Case(Brightness(), images, ladder, [replace(found, broken_by=broken_by)], 0)
    assert levels(Observed(checks.ladder_is_strong, case)) == ["weak"] * (late > 5)


def test_of_few_images_a_single_one_counts() -> None:
    assert more_than(0.05, 1, 4) and not more_than(0.05, 1, 5)
    assert not more_than(0.05, 2, 40) and more_than(0.05, 3, 40)


ALL = Rate.of(100, 100)


def reason(found: Rate | Estimate, left: Rate = ALL) -> str:
    return " ".join(doubt.reason for doubt in overstatement(found, {}, 0.1, left))


def test_two_points_are_tolerated_on_either_side_and_more_are_told() -> None:
    assert reason(Rate.of(2, 100)) == "" and "overstate" in reason(Rate.of(3, 100))
    low = Estimate(value=-0.02, n=100, low=-0.05, high=0.0, method="t")
    assert reason(low) == "" and "too low" in reason(replace(low, value=-0.021))
    told = reason(replace(low, value=-0.025, low=-0.06, high=0.01))
    assert "2.5 points too low (-1.0 to 6.0)" in told


def test_too_few_images_are_those_that_leave_ten_points_open() -> None:
    assert reason(Rate.of(0, 36)) == "" and "too few images" in reason(Rate.of(0, 34))


def test_no_more_can_fall_than_the_attacks_left_standing() -> None:
    assert reason(Rate.of(0, 5), left=Rate.of(3, 300)) == ""
    left = Rate.of(50, 300)
    assert f"up to {100 * left.high:.0f} points more" in reason(Rate.of(0, 5), left)


def test_of_many_images_five_hundred_are_looked_at_and_a_hundred_probed() -> None:
    case = case_of(of_brightness((600, FAR), side=1), Brightness())
    assert (len(case.looked_at), len(case.probed), len(case.sampled)) == (500, 100, 100)
