"""Projected gradient descent (Madry et al. 2018, arXiv:1706.06083)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from purpleteam.attacks.balls import project, steepest, uniform_start
from purpleteam.attacks.driver import Driver
from purpleteam.attacks.evasion._base import ATTACKS, EvasionAttack
from purpleteam.attacks.noise import Noise

__all__ = ["PGD"]


@ATTACKS.register("pgd")
@dataclass(frozen=True, kw_only=True)
class PGD(EvasionAttack):
    """Climbs the loss in small steps, staying inside the ball."""

    steps: int = 40
    """Number of gradient steps."""
    restarts: int = 1
    """Independent starts for each image that still stands."""
    random_start: bool = True
    """Start from a uniform point of the ball rather than from the image."""
    step_size: float | None = None
    """Length of one step; the default is 2.5 epsilon / steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step_size is not None and not 0 < self.step_size < float("inf"):
            raise ValueError(f"step_size must be above 0 and finite, not {self.step_size}")

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        step_size = 2.5 * self.epsilon / self.steps if self.step_size is None else self.step_size
        x_adv = x.clone()
        if self.random_start:
            x_adv = uniform_start(x, self.epsilon, self.norm, noise)
        for _ in range(self.steps):
            step = step_size * steepest(driver.gradient(x_adv), self.norm)
            x_adv = project(x_adv + step, x, self.epsilon, self.norm)  # (N, C, H, W)
        return x_adv
