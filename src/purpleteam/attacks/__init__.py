"""Attacks: bound a model's robustness from above, and say whether the bound is worth anything.

- `evasion/`   change the image at test time; one file per attack
- `poison/`    change the training set; triggers and what they achieve
- `evaluate`   robust accuracy over a ladder of attacks, curves over epsilon
- `soundness`  checks on the evaluation itself
- `balls`      how far an image may move;  `noise`: seeded per image;  `driver`: batches,
  precision and dropping, so that an attack's file holds only its formula
"""

from __future__ import annotations

from purpleteam.attacks.evaluate import RobustEvaluation, curve, evaluate
from purpleteam.attacks.evasion import ATTACKS, EvasionAttack
from purpleteam.attacks.evasion.fgsm import FGSM
from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.attacks.soundness import Soundness, judge

__all__ = [
    "ATTACKS",
    "FGSM",
    "PGD",
    "EvasionAttack",
    "RobustEvaluation",
    "Soundness",
    "curve",
    "evaluate",
    "judge",
]
