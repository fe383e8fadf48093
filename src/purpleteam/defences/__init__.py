"""Defences: make a model harder to break, find what was planted, take it out; instant to import.

- `training/`   adversarial training, one recipe a file
- `detection/`  backdoors in a training set, in a trained model and at input time
- `repair/`     a backdoored model made good again, one way a file
- `evaluate`    a defence measured: by transfer, before and after a repair, and re-poisoned
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from purpleteam.defences.detection import (
        MODEL_DETECTORS,
        TRAINING_SET_DETECTORS,
        ModelScan,
        RecoveredTrigger,
        Strip,
        TrainingSetScan,
        fit_strip,
        scan_model,
        scan_training_set,
    )
    from purpleteam.defences.evaluate import (
        RepairOutcome,
        evaluate_repair,
        repoison,
        run_repair,
        transfer_accuracy,
    )
    from purpleteam.defences.repair import REPAIRS, Repair, Repairing
    from purpleteam.defences.training import DEFENCES, Defence, Hardening

__all__ = [
    "DEFENCES",
    "MODEL_DETECTORS",
    "REPAIRS",
    "TRAINING_SET_DETECTORS",
    "Defence",
    "Hardening",
    "ModelScan",
    "RecoveredTrigger",
    "Repair",
    "RepairOutcome",
    "Repairing",
    "Strip",
    "TrainingSetScan",
    "evaluate_repair",
    "fit_strip",
    "repoison",
    "run_repair",
    "scan_model",
    "scan_training_set",
    "transfer_accuracy",
]

_HOMES = {
    "training": ("DEFENCES", "Defence", "Hardening"),
    "repair": ("REPAIRS", "Repair", "Repairing"),
    "evaluate": (
        *("RepairOutcome", "evaluate_repair", "repoison", "run_repair", "transfer_accuracy"),
    ),
}


def __getattr__(name: str) -> object:
    # The app asks STRIP, which needs no torch; training, repairs and scans do.
    if name not in __all__:
        raise AttributeError(f"module 'purpleteam.defences' has no attribute {name!r}")
    home = next((home for home, names in _HOMES.items() if name in names), "detection")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return list(__all__)
