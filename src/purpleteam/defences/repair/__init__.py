"""Repairs: take a backdoor out of a model; one file each. `defences.evaluate` measures them.

- `retrain` without the flagged images; `unlearn` the recovered trigger; `unlearn_set` the flagged
- `fine_tune`, `fine_prune`, `ft_sam`, `i_bau` need neither; compared, and their failures shown
"""

import sys

from purpleteam.defences.repair._base import REPAIRS, Repair, Repairing, Stamp

__all__ = ["REPAIRS", "Repair", "Repairing", "Stamp"]

REPAIRS.load(sys.modules[__name__])
