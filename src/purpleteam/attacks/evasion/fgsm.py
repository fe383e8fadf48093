"""Fast gradient sign method (Goodfellow et al. 2015, arXiv:1412.6572)."""

from torch import Tensor

from purpleteam.attacks.evasion import ATTACKS, Driver, GradientAttack, Noise, part_of
from purpleteam.attacks.norms import steepest


@part_of(ATTACKS, "fgsm")
class FGSM(GradientAttack):
    """One step of full length along the sign of the gradient (L2: along the gradient)."""

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        return x + self.epsilon * steepest(driver.gradient(x), self.norm)
