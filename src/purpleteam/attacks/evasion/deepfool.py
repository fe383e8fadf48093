"""DeepFool (Moosavi-Dezfooli et al. 2016, arXiv:1511.04599)."""

import torch
from torch import Tensor

from purpleteam.attacks.evasion import ATTACKS, Driver, MinimumNormAttack, Noise, part_of
from purpleteam.attacks.evasion import _hyperplane as hyperplane
from purpleteam.attacks.norms import column, steepest

SLACK = 1e-4  # added to each step, as the authors do: else the last ones end short of the boundary


@part_of(ATTACKS, "deepfool")
class DeepFool(MinimumNormAttack):
    """Steps onto the nearest linearised boundary until the class changes, and stops there."""

    norms = ("l2", "linf")
    ranges = "candidates at least 2; overshoot at least 0 and finite"

    steps: int = 50
    """Most steps."""
    candidates: int = 10
    """Classes whose boundaries are considered, the label among them."""
    overshoot: float = 0.02
    """How much farther than to the boundary the image goes, as a share of the way."""

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        others = hyperplane.other_classes(driver, x, self.candidates - 1)
        perturbation, x_adv = torch.zeros_like(x), x
        for _ in range(self.steps):
            driver.dropped |= driver.found  # the first example that it meets is its answer
            if not driver.standing.any():
                return x_adv
            value, normal = hyperplane.meeting(driver, others, self.norm, x_adv)
            step = column(hyperplane.how_far(value, normal, self.norm) + SLACK)
            perturbation += step * steepest(normal, self.norm)  # (N, C, H, W)
            x_adv = (x + (1 + self.overshoot) * perturbation).clamp(0, 1)
        # the linear step knows nothing of the range
        return hyperplane.nearest_boundary(driver, x_adv, self.candidates, self.norm)
