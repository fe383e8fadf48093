"""Repairs: take a backdoor out of a model; one file each. `defences.evaluate` measures them.

- `retrain`      remove the flagged training images and train anew
- `unlearn`      teach the model that the recovered trigger means nothing
- `unlearn_set`  teach it that the flagged images are anything but what they are labelled
- `fine_tune`, `fine_prune`, `ft_sam`, `i_bau`  need neither; compared, and their failures shown
"""

import sys

from purpleteam.defences.repair._base import REPAIRS, Repair, Repairing, Stamp

__all__ = ["REPAIRS", "Repair", "Repairing", "Stamp"]

REPAIRS.load(sys.modules[__name__])
