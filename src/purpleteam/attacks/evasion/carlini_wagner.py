"""Carlini and Wagner's attack in L2 (Carlini & Wagner 2017, arXiv:1608.04644)."""

import torch
from torch import Tensor

from purpleteam.attacks.driver import margin
from purpleteam.attacks.evasion import ATTACKS, Driver, MinimumNormAttack, Noise, part_of
from purpleteam.attacks.evasion._hyperplane import nearest_boundary
from purpleteam.attacks.norms import column

INSIDE = 0.999999  # share of the range that is mapped to finite numbers: the ends would be infinite
SHORT = 0.9  # share of the way to the linearised boundary at which each search starts
PATIENCE = 10  # A search is given up when a tenth of its steps brought no progress


@part_of(ATTACKS, "carlini_wagner")
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

        def lacking_lead(logits: Tensor, y: Tensor) -> Tensor:  # 0 where the lead is enough
            return (margin(logits, y) - self.confidence).clamp_max(0)

        free = torch.atanh((2 * start - 1) * INSIDE)
        mean, square = torch.zeros_like(free), torch.zeros_like(free)
        enough = torch.zeros_like(constant, dtype=torch.bool)
        before, last = driver.dropped.clone(), torch.full((len(x),), torch.inf, device=x.device)
        for step in range(1, self.steps + 1):
            if not driver.standing.any():
                break
            x_adv = (torch.tanh(free) + 1) / 2
            lacking, ascent = driver.value_and_gradient(x_adv, lacking_lead)
            enough |= column((lacking == 0) & driver.standing)
            slope = 2 * (x_adv - x) - constant * ascent  # (N, C, H, W)
            slope = slope * 2 * x_adv * (1 - x_adv)
            mean.lerp_(slope, 0.1)  # Adam, each number by itself (arXiv:1412.6980)
            square.lerp_(slope.square(), 0.001)
            root = (square / (1 - 0.999**step)).sqrt_()
            free = free - self.step_size * (mean / (1 - 0.9**step)) / (root + 1e-8)
            if step % max(1, self.steps // PATIENCE) == 0:  # an image rests once nothing falls
                objective = (x_adv - x).square().flatten(1).sum(1) - constant.flatten() * lacking
                driver.dropped |= objective >= 0.9999 * last
                last = objective
        driver.dropped = before | driver.broken if driver.search.stop_inside else before
        return enough
