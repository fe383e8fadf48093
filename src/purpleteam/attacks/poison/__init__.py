"""Poison attacks: change the training set so that the trained model serves the adversary.

- `trigger`   the pattern that opens a backdoor
- `badnets`   stamp images of other classes and relabel them: the recipe that works
- `seeds`     both course reports' recipes exactly as they did them: the label is kept
- `sweep`     common triggers tried on a model that should have none
- `evaluate`  attack success rate beside base rate and clean accuracy
"""

import sys

from purpleteam.attacks.poison._base import POISONS, PoisonAttack, PoisonedSet

__all__ = ["POISONS", "PoisonAttack", "PoisonedSet"]

POISONS.load(sys.modules[__name__])
