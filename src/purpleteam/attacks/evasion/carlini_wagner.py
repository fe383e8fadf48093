"""Carlini and Wagner's attack in L2 (Carlini & Wagner 2017, arXiv:1608.04644)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from purpleteam.attacks.driver import Driver
from purpleteam.attacks.evasion._base import ATTACKS, MinimumNormAttack
from purpleteam.attacks.evasion._hyperplane import nearest_boundary
from purpleteam.attacks.losses import margin
from purpleteam.attacks.noise import Noise

INSIDE = 0.999999
"""Share of the range that is mapped to finite numbers: the ends would be infinite."""
SHORT = 0.9
"""Share of the way to the linearised boundary at which each search starts."""
PATIENCE = 10
"""A search is given up when a tenth of its steps brought no progress."""


@ATTACKS.register("carlini_wagner")
@dataclass(frozen=True, kw_only=True)
class CarliniWagner(MinimumNormAttack):
    """Descends on squared distance plus a constant times the margin; searches for the constant."""

    ranges = (
        "constant above 0 and finite; searches at least 1; candidates at least 1; "
        "confidence at least 0 and finite"
    )

    steps: int = 1000
    """Most gradient steps of each search."""
    searches: int = 9
    """Values of the constant that are tried, by halving an interval."""
    step_size: float = 0.01
    """Adam's step size."""
    constant: float = 1e-3
    """First value of the constant."""
    confidence: float = 0.0
    """By how much the wrong logit has to lead for a constant to be enough; the nearest example
    of any lead is returned."""
    candidates: int = 10
    """Classes whose linearised boundaries are compared for the start; 1: start from the image."""

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        boundary = nearest_boundary(driver, x, self.candidates, self.norm)
        driver.logits(boundary)
        start = torch.lerp(x, boundary, SHORT)  # where no constant is enough yet
        constant = torch.full((len(x), 1, 1, 1), self.constant, device=x.device)
        low, high = torch.zeros_like(constant), torch.full_like(constant, torch.inf)
        for _ in range(self.searches):
            enough = self._descend(driver, x, start, constant)
            high = torch.where(enough, torch.minimum(high, constant), high)
            low = torch.where(enough, low, torch.maximum(low, constant))
            constant = torch.where(torch.isfinite(high), (low + high) / 2, 10 * constant)
        return x

    def _descend(self, driver: Driver, x: Tensor, start: Tensor, constant: Tensor) -> Tensor:
        """Descend with one constant; say where it was enough for an example, (N, 1, 1, 1)."""
        free = torch.atanh((2 * start - 1) * INSIDE)
        adam = _Adam(free, self.step_size)
        enough = torch.zeros_like(constant, dtype=torch.bool)
        waiting = _Patience(driver, self.steps)
        for _ in range(self.steps):
            if not driver.standing.any():
                break
            x_adv = (torch.tanh(free) + 1) / 2
            lacking, ascent = driver.value_and_gradient(x_adv, self._lacking)
            enough |= (lacking == 0).view(-1, 1, 1, 1) & driver.standing.view(-1, 1, 1, 1)
            slope = 2 * (x_adv - x) - constant * ascent  # (N, C, H, W)
            free = adam.step(free, slope * 2 * x_adv * (1 - x_adv))
            waiting.look((x_adv - x).square().flatten(1).sum(1) - constant.flatten() * lacking)
        waiting.end()
        return enough

    def _lacking(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return 0 where the wrong logit leads by enough, else the rest, negative."""
        return (margin(logits, y) - self.confidence).clamp_max(0)


class _Adam:
    """Adam, each number by itself (Kingma & Ba 2015, arXiv:1412.6980)."""

    def __init__(self, like: Tensor, step_size: float) -> None:
        self.mean, self.square = torch.zeros_like(like), torch.zeros_like(like)
        self.step_size = step_size
        self.count = 0

    def step(self, free: Tensor, slope: Tensor) -> Tensor:
        self.count += 1
        self.mean.lerp_(slope, 0.1)
        self.square.lerp_(slope.square(), 0.001)
        mean = self.mean / (1 - 0.9**self.count)
        root = (self.square / (1 - 0.999**self.count)).sqrt_()
        return free - self.step_size * mean / (root + 1e-8)


class _Patience:
    """Lets an image rest until the next search once its objective no longer falls."""

    def __init__(self, driver: Driver, steps: int) -> None:
        self.driver = driver
        self.before = driver.dropped.clone()
        self.every = max(1, steps // PATIENCE)
        self.count = 0
        self.last = torch.full((len(driver.x),), torch.inf, device=driver.x.device)

    def look(self, objective: Tensor) -> None:
        self.count += 1
        if self.count % self.every == 0:
            self.driver.dropped |= objective >= 0.9999 * self.last
            self.last = objective

    def end(self) -> None:
        done = self.driver.broken if self.driver.search.stop_inside else self.before
        self.driver.dropped = self.before | done
