"""Fast minimum-norm attack (Pintor et al. 2021, arXiv:2102.12827)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi
from typing import ClassVar

import torch
from torch import Tensor

from purpleteam.attacks.balls import Norm, steepest
from purpleteam.attacks.driver import Driver
from purpleteam.attacks.evasion._base import ATTACKS, MinimumNormAttack
from purpleteam.attacks.evasion._hyperplane import how_far, length, nearest_boundary
from purpleteam.attacks.losses import margin
from purpleteam.attacks.noise import Noise

__all__ = ["FMN"]


@ATTACKS.register("fmn")
@dataclass(frozen=True, kw_only=True)
class FMN(MinimumNormAttack):
    """Climbs the margin in a ball that closes in on the boundary from both sides."""

    norms: ClassVar[tuple[Norm, ...]] = ("l2", "linf", "l1", "l0")

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
        if not 0 < self.step_size < float("inf"):
            raise ValueError(f"step_size must be above 0 and finite, not {self.step_size}")
        if not 0 < self.last_change <= self.change < 1:
            raise ValueError(
                "change must be under 1 and at least last_change, which must be above 0, "
                f"not {self.change} and {self.last_change}"
            )
        if self.candidates < 1:
            raise ValueError(f"candidates must be at least 1, not {self.candidates}")

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        sparse = self.norm in ("l0", "l1")
        seen = None if sparse else noise
        boundary = nearest_boundary(driver, x, self.candidates, self.norm, seen)
        radius = length(boundary - x, self.norm).clamp_min(1.0 if self.norm == "l0" else 0.0)
        if sparse:  # a start that changes few values would hold on to them
            driver.logits(boundary)
            boundary = x
        perturbation = boundary - x
        for step in range(self.steps):
            lead, gradient = driver.value_and_gradient(x + perturbation, margin)
            cooling = (1 + cos(pi * step / self.steps)) / 2
            change = self.last_change + (self.change - self.last_change) * cooling
            radius = self._radius(driver, radius, change, perturbation, lead, gradient)
            step_size = self.step_size * (0.01 + 0.99 * cooling)
            perturbation = perturbation + step_size * steepest(gradient, "l2")
            perturbation = _SHRINK[self.norm](perturbation, radius)  # (N, C, H, W)
            perturbation = (x + perturbation).clamp_(0, 1) - x
        return x + perturbation

    def _radius(
        self,
        driver: Driver,
        radius: Tensor,
        change: float,
        perturbation: Tensor,
        lead: Tensor,
        gradient: Tensor,
    ) -> Tensor:
        """Return the next radius, (N,): to the linearised boundary until an example is known."""
        known, best = driver.found, driver.nearest_distance.to(radius.dtype)
        if self.norm == "l0":  # whole values, and at least one at a time
            smaller = torch.minimum((radius * (1 - change)).floor(), radius - 1)
            larger = torch.maximum((radius * (1 + change)).floor(), radius + 1)
        else:
            smaller, larger = radius * (1 - change), radius * (1 + change)
            boundary = length(perturbation, self.norm) + how_far(lead, gradient, self.norm)
            larger = torch.where(known, larger, boundary * (1 + change))  # on it is not beyond it
        return torch.where(lead > 0, torch.minimum(smaller, best), larger).clamp_min(0)


def _shrink_linf(perturbation: Tensor, radius: Tensor) -> Tensor:
    bound = radius.view(-1, 1, 1, 1)
    return torch.maximum(torch.minimum(perturbation, bound), -bound)


def _shrink_l2(perturbation: Tensor, radius: Tensor) -> Tensor:
    share = (radius / length(perturbation, "l2").clamp_min(1e-12)).clamp_max(1)
    return perturbation * share.view(-1, 1, 1, 1)


def _shrink_l1(perturbation: Tensor, radius: Tensor) -> Tensor:
    """Every value shrinks by one threshold, found by sorting (Duchi et al. 2008)."""
    size = perturbation.flatten(1).abs()
    ordered = size.sort(1, descending=True).values
    count = torch.arange(1, ordered.shape[1] + 1, device=size.device)
    excess = (ordered.cumsum(1) - radius.unsqueeze(1)) / count
    threshold = excess.amax(1, keepdim=True).clamp_min(0)  # the largest is the one that fits
    kept = (size - threshold).clamp_min_(0).view_as(perturbation)
    return kept * perturbation.sign()


def _shrink_l0(perturbation: Tensor, radius: Tensor) -> Tensor:
    """The largest values stay."""
    order = perturbation.flatten(1).abs().argsort(dim=1, descending=True, stable=True)
    place = torch.arange(order.shape[1], device=order.device).expand_as(order)
    kept = torch.zeros_like(order, dtype=torch.bool)
    kept.scatter_(1, order, place < radius.unsqueeze(1))
    return perturbation * kept.view_as(perturbation)


_SHRINK: dict[Norm, Callable[[Tensor, Tensor], Tensor]] = {
    "linf": _shrink_linf,
    "l2": _shrink_l2,
    "l1": _shrink_l1,
    "l0": _shrink_l0,
}
