"""Auto-PGD on the differences of logits ratio (Croce & Hein 2020, arXiv:2003.01690)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from purpleteam.attacks.driver import Driver
from purpleteam.attacks.evasion._apgd import AutoPGD
from purpleteam.attacks.evasion._base import ATTACKS
from purpleteam.attacks.losses import dlr
from purpleteam.attacks.noise import Noise
from purpleteam.core.errors import UsageError


@ATTACKS.register("apgd_dlr")
@dataclass(frozen=True, kw_only=True)
class APGDDLR(AutoPGD):
    """Climbs a loss that no scale of the logits can flatten; needs 3 classes."""

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        if driver.classes < 3:
            raise UsageError(
                f"{self.name}: its loss needs at least 3 classes, the model has {driver.classes}; "
                "try apgd_ce, or apgd_t:loss=margin"
            )
        return self.climb(driver, x, noise, dlr)
