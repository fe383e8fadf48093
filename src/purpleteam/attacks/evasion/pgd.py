"""Projected gradient descent (Madry et al. 2018, arXiv:1706.06083).

In L1 its steps are sparse (SLIDE, Tramer and Boneh 2019, arXiv:1904.13000).
"""

from torch import Tensor

from purpleteam.attacks.evasion import ATTACKS, Driver, GradientAttack, Noise, part_of
from purpleteam.attacks.norms import CONVEX, NORMS, project, uniform_start


@part_of(ATTACKS, "pgd")
class PGD(GradientAttack):
    """Climbs the loss in small steps, staying inside the ball."""

    norms = CONVEX
    ranges = "sparsity at least 0 and below 1"

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

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        step_size = 2.5 * self.epsilon / self.steps if self.step_size is None else self.step_size
        x_adv = x.clone()
        if self.random_start:
            x_adv = uniform_start(x, self.epsilon, self.norm, noise)
        for _ in range(self.steps):
            step = NORMS[self.norm].step(driver.gradient(x_adv), x_adv, step_size, self.sparsity)
            x_adv = project(x_adv + step, x, self.epsilon, self.norm)  # (N, C, H, W)
        return x_adv
