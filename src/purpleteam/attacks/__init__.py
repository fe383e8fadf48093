"""Attacks: bound a model's robustness from above, and say whether the bound is worth anything.

- `evasion/`    change the image at test time; one file per attack
- `poison/`     change the training set; triggers and what they achieve
- `peers/`      other libraries' attacks, run inside our evaluation;  `cross_check`: beside ours
- `evaluate`    robust accuracy over a ladder of attacks, curves over epsilon;  `outcomes`: what it
  found, image by image;  `journal`: where a killed evaluation goes on
- `soundness/`  checks on the evaluation itself
- `driver`      batches, precision, dropping and budgets, so that an attack's file holds only its
  formula;  `balls`: how far an image may move;  `losses`;  `noise`: seeded per image
- `wrappers`    a random model averaged, a model without gradients given some
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
