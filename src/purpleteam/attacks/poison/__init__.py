"""Poison attacks: change the training set so that the trained model serves the adversary.

An attack is one file. `_base` keeps the promises: which images, what is on record, seeded per
image by its place, more poisons keep the earlier ones.

- `badnets`, `blended`, `sig`, `wanet`         a trigger each: patch, picture, stripes, warp
- `tact`, `adaptive_blend`, `adaptive_patch`   written against detectors, with cover samples
- `clean_label`, `witches_brew`                no wrong label; made with gradients of `_surrogate`
- `label_flip`                                 wrong labels alone, which cost accuracy
- `triggers`   what opens a backdoor
- `evaluate`   attack success rate beside base rate and clean accuracy; on one image; and common
               triggers tried on a model that should have none
- `curve`      success over the number of poisons, with intervals over repetitions
- `asked`      from what is typed, or from a poisoned set's manifest, to an attack
"""

import sys

from purpleteam.attacks.poison._base import POISONS, PoisonAttack, PoisonedSet

__all__ = ["POISONS", "PoisonAttack", "PoisonedSet"]

POISONS.load(sys.modules[__name__])
