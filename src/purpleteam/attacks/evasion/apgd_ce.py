"""Auto-PGD on the cross-entropy (Croce & Hein 2020, arXiv:2003.01690)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from purpleteam.attacks.driver import Driver
from purpleteam.attacks.evasion._apgd import AutoPGD
from purpleteam.attacks.evasion._base import ATTACKS
from purpleteam.attacks.losses import cross_entropy
from purpleteam.attacks.noise import Noise


@ATTACKS.register("apgd_ce")
@dataclass(frozen=True, kw_only=True)
class APGDCE(AutoPGD):
    """Climbs the cross-entropy; finds its own step sizes."""

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        return self.climb(driver, x, noise, cross_entropy)
