"""Momentum iterative method (Dong et al. 2018, arXiv:1710.06081)."""

import torch
from torch import Tensor

from purpleteam.attacks.evasion import ATTACKS, Driver, Noise, part_of
from purpleteam.attacks.evasion.bim import BIM
from purpleteam.attacks.norms import project, steepest


@part_of(ATTACKS, "mifgsm")
class MIFGSM(BIM):
    """Steps along the sum of past gradients, which carries over better to other models."""

    ranges = "decay from 0 to 1"

    decay: float = 1.0
    """What is left of the sum of past gradients at the next step."""

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        step_size = self.epsilon / self.steps if self.step_size is None else self.step_size
        x_adv, momentum = x.clone(), torch.zeros_like(x)
        for _ in range(self.steps):
            gradient = driver.gradient(x_adv)  # over its mean size, so that all weigh alike
            size = gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-38)
            momentum = self.decay * momentum + gradient / size
            step = step_size * steepest(momentum, self.norm)
            x_adv = project(x_adv + step, x, self.epsilon, self.norm)  # (N, C, H, W)
        return x_adv
