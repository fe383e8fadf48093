"""Projected gradient descent (Madry et al. 2018, arXiv:1706.06083).

In L1 its steps are sparse (SLIDE, Tramer and Boneh 2019, arXiv:1904.13000): a step along the one
steepest value would need as many steps as there are values to change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from purpleteam.attacks.balls import Norm, project, steepest, uniform_start
from purpleteam.attacks.driver import Driver
from purpleteam.attacks.evasion._base import ATTACKS, GradientAttack
from purpleteam.attacks.noise import Noise

__all__ = ["PGD"]


@ATTACKS.register("pgd")
@dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
    """Climbs the loss in small steps, staying inside the ball."""

    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")

    steps: int = 40
    """Number of gradient steps."""
    restarts: int = 1
    """Independent starts for each image that still stands."""
    random_start: bool = True
    """Start from a uniform point of the ball rather than from the image."""
    step_size: float | None = None
    """Length of one step; the default is 2.5 epsilon / steps."""
    sparsity: float = 0.99
    """Share of the values that a step in L1 leaves alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity must be at least 0 and below 1, not {self.sparsity}")

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        step_size = 2.5 * self.epsilon / self.steps if self.step_size is None else self.step_size
        x_adv = x.clone()
        if self.random_start:
            x_adv = uniform_start(x, self.epsilon, self.norm, noise)
        for _ in range(self.steps):
            step = self._step(driver.gradient(x_adv), x_adv, step_size)
            x_adv = project(x_adv + step, x, self.epsilon, self.norm)  # (N, C, H, W)
        return x_adv

    def _step(self, gradient: Tensor, x_adv: Tensor, step_size: float) -> Tensor:
        if self.norm == "l1":
            return sparse_step(gradient, x_adv, step_size, self.sparsity)
        return step_size * steepest(gradient, self.norm)


def sparse_step(gradient: Tensor, x_adv: Tensor, step_size: float, sparsity: float) -> Tensor:
    """Return the step of that length in L1, shared out evenly to the steepest values.

    Each gets its share or what room it has within [0, 1]; what is left goes to the next ones.
    """
    slope = gradient.flatten(1)  # (N, values)
    room = torch.where(slope > 0, 1 - x_adv.flatten(1), x_adv.flatten(1)).clamp_min(0)
    share = step_size / max(1, round((1 - sparsity) * slope.shape[1]))
    steepest_first = slope.abs().argsort(dim=1, descending=True)
    most = (room.clamp_max(share) * slope.sign().abs()).gather(1, steepest_first)
    left = step_size - (most.cumsum(1) - most)
    taken = torch.minimum(most, left.clamp_min(0))
    step = torch.zeros_like(slope).scatter_(1, steepest_first, taken) * slope.sign()
    return step.view_as(gradient)
