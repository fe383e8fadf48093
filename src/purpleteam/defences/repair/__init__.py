"""Repairs: take a backdoor out of a model; one file each, and what they are measured by.

- `retrain`      remove the flagged training images and train anew
- `unlearn`      teach the model that the recovered trigger means nothing
- `unlearn_set`  teach it that the flagged images are anything but what they are labelled
- `fine_tune`, `fine_prune`, `ft_sam`, `i_bau`  need neither; compared, and their failures shown
- `repoison`     a repaired model is attacked again with a few samples
- `evaluate`     before and after: accuracy, attack success, effectiveness, cost
"""

import sys

from purpleteam.defences.repair._base import REPAIRS, Repair, Repairing, Stamp

__all__ = ["REPAIRS", "Repair", "Repairing", "Stamp"]

REPAIRS.load(sys.modules[__name__])
