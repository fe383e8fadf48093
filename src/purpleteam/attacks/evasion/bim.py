"""Basic iterative method (Kurakin, Goodfellow and Bengio 2017, arXiv:1607.02533)."""

from torch import Tensor

from purpleteam.attacks.evasion import ATTACKS, Driver, GradientAttack, Noise, part_of
from purpleteam.attacks.norms import project, steepest


@part_of(ATTACKS, "bim")
class BIM(GradientAttack):
    """Repeats FGSM in small steps, starting at the image itself."""

    steps: int = 10
    """Number of gradient steps."""
    step_size: float | None = None
    """Length of one step; the default is epsilon / steps."""

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        step_size = self.epsilon / self.steps if self.step_size is None else self.step_size
        x_adv = x.clone()
        for _ in range(self.steps):
            step = step_size * steepest(driver.gradient(x_adv), self.norm)
            x_adv = project(x_adv + step, x, self.epsilon, self.norm)  # (N, C, H, W)
        return x_adv
