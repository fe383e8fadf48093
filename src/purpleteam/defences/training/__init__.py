"""Defences by training, one file each: `DEFENCES` has them; each trains a model on a dataset.

- `pgd` against the current model, several steps; `fast` a single step from a random start
"""

import sys

from purpleteam.defences.training._base import DEFENCES, Defence, Hardening

__all__ = ["DEFENCES", "Defence", "Hardening"]

DEFENCES.load(sys.modules[__name__])
