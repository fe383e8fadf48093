"""Fast minimum-norm attack (Pintor et al. 2021, arXiv:2102.12827)."""

from math import cos, pi

import torch
from torch import Tensor

from purpleteam.attacks.driver import margin
from purpleteam.attacks.evasion import ATTACKS, Driver, MinimumNormAttack, Noise, part_of
from purpleteam.attacks.evasion._hyperplane import how_far, nearest_boundary
from purpleteam.attacks.norms import NORMS, steepest


@part_of(ATTACKS, "fmn")
class FMN(MinimumNormAttack):
    """Climbs the margin in a ball that closes in on the boundary from both sides."""

    norms = ("l2", "linf", "l1", "l0")
    ranges = "candidates at least 1"

    steps: int = 100
    """Number of gradient steps."""
    step_size: float = 1.0
    """Length of the first step; the last is a hundredth of it."""
    change: float = 0.05
    """Share by which the radius changes at the first step; it falls to `last_change`."""
    last_change: float = 0.001
    """Share by which the radius changes at the last step."""
    candidates: int = 10
    """Classes whose linearised boundaries are compared for the start; 1: start from the image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.last_change <= self.change < 1:
            raise ValueError(
                "change must be under 1 and at least last_change, which must be above 0, "
                f"not {self.change} and {self.last_change}"
            )

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        norm = NORMS[self.norm]
        seen = None if norm.sparse else noise
        boundary = nearest_boundary(driver, x, self.candidates, self.norm, seen)
        radius = norm.length(boundary - x).clamp_min(0.0 if norm.convex else 1.0)
        if norm.sparse:  # a start that changes few values would hold on to them
            driver.logits(boundary)
            boundary = x
        perturbation = boundary - x
        for step in range(self.steps):
            lead, gradient = driver.value_and_gradient(x + perturbation, margin)
            cooling = (1 + cos(pi * step / self.steps)) / 2
            change = self.last_change + (self.change - self.last_change) * cooling
            smaller, larger = radius * (1 - change), radius * (1 + change)
            if not norm.convex:  # whole values, and at least one at a time
                smaller = torch.minimum(smaller.floor(), radius - 1)
                larger = torch.maximum(larger.floor(), radius + 1)
            else:  # to the linearised boundary, and beyond it, until an example is known
                boundary = norm.length(perturbation) + how_far(lead, gradient, self.norm)
                larger = torch.where(driver.found, larger, boundary * (1 + change))
            smaller = torch.minimum(smaller, driver.nearest_distance.to(radius.dtype))
            radius = torch.where(lead > 0, smaller, larger).clamp_min(0)
            step_size = self.step_size * (0.01 + 0.99 * cooling)
            perturbation = perturbation + step_size * steepest(gradient, "l2")
            perturbation = norm.shrink(perturbation, radius)  # (N, C, H, W)
            perturbation = (x + perturbation).clamp_(0, 1) - x
        return x + perturbation
