"""The scanners, one file each; a new one registers itself and is found.

- `bandit_code`   Bandit over Python files
- `ml_code`       our own rules for machine-learning code, in `purpleteam.scan.rules`
- `secrets`       keys and passwords in text files
- `model_file`    model files, by content: what is not known is refused
"""

from __future__ import annotations

import sys

from purpleteam.scan.scanner import SCANNERS

__all__ = ["SCANNERS"]

SCANNERS.load(sys.modules[__name__])
