"""Poison attacks: change the training set so that the trained model serves the adversary.

An attack is one file. `_base` keeps the promises (which images, what is on record, seeded per
image by its place, more poisons keep the earlier ones), `_choice` draws, `_set` holds the result.

- `badnets`, `blended`, `sig`, `wanet`         a trigger each: patch, picture, stripes, warp
- `tact`, `adaptive_blend`, `adaptive_patch`   written against detectors, with cover samples
- `clean_label`, `witches_brew`                no wrong label; made with gradients of `_surrogate`
- `label_flip`                                 wrong labels alone, which cost accuracy
- `seeds`      both course reports' recipes exactly as they did them: the label is kept
- `trigger`    the patch;  `triggers/`: the others
- `evaluate`   attack success rate beside base rate and clean accuracy;  `victim`: on one image
- `curve`      success over the number of poisons, with intervals over seeds
- `asked`      from what is typed to an attack
- `manifest`   from what a poisoned set's manifest says back to the attack
- `sweep`      common triggers tried on a model that should have none
"""

import sys

from purpleteam.attacks.poison._base import POISONS, PoisonAttack
from purpleteam.attacks.poison._set import PoisonedSet

__all__ = ["POISONS", "PoisonAttack", "PoisonedSet"]

POISONS.load(sys.modules[__name__])
