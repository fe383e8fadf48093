"""Evasion attacks: change the image at test time. One file per attack, found by existing.

`_base` keeps the promise (ball, range, the model left alone, noise seeded per image by index);
a file holds only its formula.
"""

import sys

from purpleteam.attacks.evasion._base import (
    ATTACKS,
    Attacked,
    Ensemble,
    EvasionAttack,
    GradientAttack,
    MinimumNormAttack,
    QueryAttack,
)

__all__ = [
    "ATTACKS",
    "Attacked",
    "Ensemble",
    "EvasionAttack",
    "GradientAttack",
    "MinimumNormAttack",
    "QueryAttack",
]

ATTACKS.load(sys.modules[__name__])
