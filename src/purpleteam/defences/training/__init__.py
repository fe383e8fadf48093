"""Defences by training, one file each: `DEFENCES` has them; each trains a model on a dataset.

- `pgd`     adversarial training against the current model, several steps
- `fast`    the same with a single step from a random start

A recipe of another file here, or of a plug-in, registers itself.
"""

import sys

from purpleteam.defences.training._base import DEFENCES, Defence, Hardening

__all__ = ["DEFENCES", "Defence", "Hardening"]

DEFENCES.load(sys.modules[__name__])
