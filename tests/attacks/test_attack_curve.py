"""A search for the nearest example says all about every radius in one pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from torch import Tensor, nn

from purpleteam.attacks import curve, evaluate
from purpleteam.attacks.driver import Driver
from purpleteam.attacks.evasion import MinimumNormAttack
from purpleteam.attacks.norms import Noise
from purpleteam.core.errors import UsageError
from purpleteam.data.images import ImageSet

RADII = [0.05, 0.5, 1.5]


@dataclass(frozen=True, kw_only=True)
class Straight(MinimumNormAttack):
    """Goes along the gradient at the image and asks ever nearer: no attack to be proud of."""

    name: ClassVar[str] = "straight"
    norms: ClassVar[tuple[str, ...]] = ("l2",)

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        direction = driver.gradient(x)
        direction = direction / direction.flatten(1).norm(dim=1).clamp_min(1e-9).view(-1, 1, 1, 1)
        for length in (3.0, 1.4, 0.7, 0.4, 0.2, 0.1, 0.04):
            driver.logits(x + length * direction)
        return x + 3 * direction


def test_each_point_of_the_one_pass_is_what_an_evaluation_at_that_radius_finds(
    standard: nn.Module, images: ImageSet
) -> None:
    points = curve(standard, images, [Straight()], RADII)
    for radius, point in points.items():
        alone = evaluate(standard, images, Straight(epsilon=radius))
        assert np.array_equal(point.broken_by, alone.broken_by)
        assert point.robust_accuracy == alone.robust_accuracy
        assert point.attacks[0].survived == point.robust_accuracy
        assert np.array_equal(point.distance, alone.distance, equal_nan=True)
        assert point.cost == points[RADII[-1]].cost  # of one pass: the seconds are the same
    values = [point.robust_accuracy.value for point in points.values()]
    assert values[0] > values[-1]


def test_what_is_kept_of_a_point_lies_inside_its_ball(
    standard: nn.Module, images: ImageSet
) -> None:
    clean = images.images / np.float32(255)
    for radius, point in curve(standard, images, [Straight()], RADII).items():
        moved = (point.x_adv.astype(np.float64) - clean).reshape(len(clean), -1)
        assert (np.linalg.norm(moved, axis=1) <= radius + 1e-6).all()


def test_a_search_that_stops_inside_its_ball_is_made_at_each_radius(
    standard: nn.Module, images: ImageSet
) -> None:
    """It stops at the first example inside the widest ball, which says nothing of a smaller."""
    points = curve(standard, images, [Straight(stop_inside=True)], RADII)
    through = curve(standard, images, [Straight()], RADII)
    for radius, point in points.items():
        assert np.array_equal(point.robust, through[radius].robust)
        assert point.attacks[0].epsilon == radius


def test_what_was_broken_is_told_with_the_attack_that_did_it(
    standard: nn.Module, images: ImageSet
) -> None:
    found = evaluate(standard, images, Straight(epsilon=0.5)).breaks
    assert len(found.rows) > 0 and found.by == ("straight",) * len(found.rows)
    assert found.epsilon == 0.5 and (found.distance <= 0.5).all()


def test_several_searches_are_made_at_each_radius(standard: nn.Module, images: ImageSet) -> None:
    points = curve(standard, images, [Straight(), Straight()], RADII)
    assert [len(point.attacks) for point in points.values()] == [2, 2, 2]
    for radius, point in points.items():
        assert np.array_equal(
            point.robust, evaluate(standard, images, Straight(epsilon=radius)).robust
        )


def test_without_radii_there_is_no_curve(standard: nn.Module, images: ImageSet) -> None:
    assert curve(standard, images, [Straight()], []) == {}


def test_a_smaller_ball_keeps_what_lies_on_its_border_and_nothing_beyond(
    standard: nn.Module, images: ImageSet
) -> None:
    wide = evaluate(standard, images, Straight(epsilon=1.5))
    fell = np.flatnonzero(wide.broken_by >= 0)
    order = fell[np.argsort(wide.distance[fell])]
    last = order[len(order) // 2]  # the farthest that still counts, exactly on the border
    small = wide.within(float(wide.distance[last]), images)
    kept = wide.distance[fell] <= wide.distance[last]
    assert small.broken_by[last] == wide.broken_by[last] == 0 and 0 < kept.sum() < len(fell)
    assert np.array_equal(small.broken_by[fell] >= 0, kept)
    assert np.isnan(small.distance[fell[~kept]]).all()
    assert np.array_equal(small.distance[fell[kept]], wide.distance[fell[kept]])
    clean = images.images / np.float32(255)
    assert np.array_equal(small.x_adv[fell[~kept]], clean[fell[~kept]])
    assert np.array_equal(small.x_adv[fell[kept]], wide.x_adv[fell[kept]])
    assert small.clean_accuracy == wide.clean_accuracy
    stood = wide.robust_accuracy.successes + int((~kept).sum())
    assert small.robust_accuracy.successes == small.attacks[0].survived.successes == stood
    assert wide.within(1.5, images) is wide


def test_in_a_smaller_ball_each_attack_of_a_ladder_has_its_own_count(
    standard: nn.Module, images: ImageSet
) -> None:
    wide = evaluate(standard, images, Straight(epsilon=1.5), Straight(epsilon=1.5))
    fell = np.flatnonzero(wide.broken_by == 0)
    second = wide.broken_by.copy()
    second[fell[::2]] = 1  # as if the second attack had found them
    first, last = replace(wide, broken_by=second).within(1.0, images).attacks
    near = wide.distance[fell] <= 1.0
    clean = int(wide.clean_correct.sum())
    assert first.survived.successes == clean - int(near[1::2].sum())
    assert last.survived.successes == clean - int(near.sum())
    assert (first.epsilon, last.epsilon) == (1.0, 1.0)


def test_it_costs_no_more_than_its_widest_point(standard: nn.Module, images: ImageSet) -> None:
    points = curve(standard, images, [Straight()], RADII)
    widest = evaluate(standard, images, Straight(epsilon=max(RADII)))
    assert points[max(RADII)].cost["forward"] == widest.cost["forward"]


def test_without_a_radius_there_is_no_robust_accuracy(
    standard: nn.Module, images: ImageSet
) -> None:
    with pytest.raises(UsageError, match="'straight' needs an epsilon"):
        evaluate(standard, images, Straight())
