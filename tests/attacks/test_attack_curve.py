"""A search for the nearest example says all about every radius in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from torch import Tensor, nn

from purpleteam.attacks import curve, evaluate
from purpleteam.attacks.balls import Norm
from purpleteam.attacks.driver import Driver
from purpleteam.attacks.evasion import MinimumNormAttack
from purpleteam.attacks.noise import Noise
from purpleteam.core.errors import UsageError
from purpleteam.data.images import ImageSet

RADII = [0.05, 0.5, 1.5]


@dataclass(frozen=True, kw_only=True)
class Straight(MinimumNormAttack):
    """Goes along the gradient at the image and asks ever nearer: no attack to be proud of."""

    name: ClassVar[str] = "straight"
    norms: ClassVar[tuple[Norm, ...]] = ("l2",)

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
    values = [point.robust_accuracy.value for point in points.values()]
    assert values[0] > values[-1]


def test_what_is_kept_of_a_point_lies_inside_its_ball(
    standard: nn.Module, images: ImageSet
) -> None:
    clean = images.images / np.float32(255)
    for radius, point in curve(standard, images, [Straight()], RADII).items():
        moved = (point.x_adv.astype(np.float64) - clean).reshape(len(clean), -1)
        assert (np.linalg.norm(moved, axis=1) <= radius + 1e-6).all()


def test_it_costs_no_more_than_its_widest_point(standard: nn.Module, images: ImageSet) -> None:
    points = curve(standard, images, [Straight()], RADII)
    widest = evaluate(standard, images, Straight(epsilon=max(RADII)))
    assert points[max(RADII)].cost["forward"] == widest.cost["forward"]


def test_without_a_radius_there_is_no_robust_accuracy(
    standard: nn.Module, images: ImageSet
) -> None:
    with pytest.raises(UsageError, match="'straight' needs an epsilon"):
        evaluate(standard, images, Straight())
