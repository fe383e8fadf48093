"""Defences: make a model harder to break, find what was planted, take it out; instant to import.

- `training/`   adversarial training, and what the seeds did instead
- `detection/`  backdoors in a training set, in a trained model and at input time
- `repair/`     a backdoored model made good again, one way a file
- `evaluate`    before and after, white-box against each model, beside the seeds' way of measuring
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from purpleteam.defences.training import DEFENCES, Defence, Hardening

__all__ = ["DEFENCES", "Defence", "Hardening"]


def __getattr__(name: str) -> object:
    # The app asks STRIP, which needs no torch; adversarial training does.
    if name not in __all__:
        raise AttributeError(f"module 'purpleteam.defences' has no attribute {name!r}")
    return getattr(import_module("purpleteam.defences.training"), name)


def __dir__() -> list[str]:
    return list(__all__)
