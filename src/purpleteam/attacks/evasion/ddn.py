"""Decoupled direction and norm (Rony et al. 2019, arXiv:1811.09600)."""

from math import cos, pi

import torch
from torch import Tensor

from purpleteam.attacks.driver import cross_entropy, margin
from purpleteam.attacks.evasion import ATTACKS, Driver, MinimumNormAttack, Noise, part_of
from purpleteam.attacks.evasion._hyperplane import nearest_boundary
from purpleteam.attacks.norms import NORMS, column, steepest


@part_of(ATTACKS, "ddn")
class DDN(MinimumNormAttack):
    """Climbs the loss on a sphere that shrinks while the model errs and grows while it does not."""

    ranges = "radius above 0 and finite; change between 0 and 1; candidates at least 1"

    steps: int = 100
    """Number of gradient steps."""
    step_size: float = 1.0
    """Length of the first step; the last is a hundredth of it."""
    radius: float = 1.0
    """Radius of the first sphere, where the start does not tell it."""
    change: float = 0.05
    """Share by which the radius changes at each step."""
    candidates: int = 10
    """Classes whose linearised boundaries are compared for the start; 1: start from the image."""

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        perturbation = nearest_boundary(driver, x, self.candidates, self.norm, noise) - x
        radius = column(NORMS[self.norm].length(perturbation))
        radius = torch.where(radius > 0, radius, self.radius)
        every = torch.arange(len(x), device=x.device)
        errs = torch.zeros(len(x), dtype=torch.bool, device=x.device)

        def watched(logits: Tensor, y: Tensor, rows: Tensor) -> Tensor:
            errs[rows] = margin(logits.detach(), y) > 0
            return cross_entropy(logits, y)

        for step in range(self.steps):
            gradient = driver.gradient(x + perturbation, watched, every)
            step_size = self.step_size * (0.01 + 0.99 * (1 + cos(pi * step / self.steps)) / 2)
            perturbation = perturbation + step_size * steepest(gradient, "l2")
            radius = radius * torch.where(column(errs), 1 - self.change, 1 + self.change)
            perturbation = radius * steepest(perturbation, "l2")  # (N, C, H, W)
            perturbation = (x + perturbation).clamp_(0, 1) - x
        return x + perturbation
