"""Defences: make a model harder to break, and measure the defended model itself.

- `training/`   adversarial training, and what the seeds did instead
- `evaluate`    before and after, white-box against each model, beside the seeds' way of measuring
"""

from __future__ import annotations

from purpleteam.defences.training import DEFENCES, Defence, Hardening

__all__ = ["DEFENCES", "Defence", "Hardening"]
