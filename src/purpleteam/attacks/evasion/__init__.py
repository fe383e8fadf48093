"""Evasion attacks: change the image at test time. One file per attack, found by existing.

`_base` keeps the promise (ball, range, the model left alone, noise seeded per image by index);
a file holds only its formula, and takes what it needs from here.
"""

import sys

from purpleteam.attacks.driver import Driver
from purpleteam.attacks.evasion._base import (
    ATTACKS,
    Attacked,
    Ensemble,
    EvasionAttack,
    FittedAttack,
    GradientAttack,
    MinimumNormAttack,
    QueryAttack,
)
from purpleteam.attacks.noise import Noise

__all__ = ["ATTACKS", "Attacked", "Driver", "Ensemble", "EvasionAttack", "FittedAttack"]
__all__ += ["GradientAttack", "MinimumNormAttack", "Noise", "QueryAttack"]

ATTACKS.load(sys.modules[__name__])
