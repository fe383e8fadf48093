"""Attacks: bound a model's robustness from above, and say whether the bound is worth anything.

- `evasion/`    change the image at test time; one file per attack
- `poison/`     change the training set; triggers and what they achieve
- `peers`       other libraries' attacks, run inside our evaluation;  `cross_check`: beside ours
- `norms`       how far an image may move, and how: one table that every attack asks; seeded draws
- `driver`      losses, batches, dropping, confirming and budgets, so that an attack's file holds
  only its formula;  `inputs`: what an attack is given, or one line
- `evaluate`    robust accuracy over a ladder of attacks, curves over epsilon; a journal with which
  a killed evaluation goes on;  `outcomes`: its result, image by image
- `soundness/`  checks on the evaluation itself
- `wrappers`    a random model averaged, a model without gradients given some
"""

from purpleteam.attacks.evaluate import curve, evaluate
from purpleteam.attacks.evasion import ATTACKS, EvasionAttack
from purpleteam.attacks.evasion.apgd import APGDCE, APGDDLR, APGDT
from purpleteam.attacks.evasion.autoattack import AutoAttack
from purpleteam.attacks.evasion.bim import BIM
from purpleteam.attacks.evasion.carlini_wagner import CarliniWagner
from purpleteam.attacks.evasion.ddn import DDN
from purpleteam.attacks.evasion.deepfool import DeepFool
from purpleteam.attacks.evasion.fab import FAB
from purpleteam.attacks.evasion.fgsm import FGSM
from purpleteam.attacks.evasion.fmn import FMN
from purpleteam.attacks.evasion.hop_skip_jump import HopSkipJump
from purpleteam.attacks.evasion.mifgsm import MIFGSM
from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.attacks.evasion.square import Square
from purpleteam.attacks.norms import NORMS, Norm
from purpleteam.attacks.outcomes import RobustEvaluation
from purpleteam.attacks.soundness import Soundness, soundness_of
from purpleteam.attacks.wrappers import Averaged, BackwardPass

__all__ = ["ATTACKS", "NORMS", "EvasionAttack", "Norm"]
__all__ += ["APGDCE", "APGDDLR", "APGDT", "BIM", "DDN", "FAB", "FGSM", "FMN", "MIFGSM", "PGD"]
__all__ += ["AutoAttack", "CarliniWagner", "DeepFool", "HopSkipJump", "Square"]
__all__ += ["Averaged", "BackwardPass", "RobustEvaluation", "Soundness"]
__all__ += ["curve", "evaluate", "soundness_of"]
