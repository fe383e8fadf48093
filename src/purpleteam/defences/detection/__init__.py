"""Find backdoors: in a training set, in a trained model and at input time; instant to import.

- `outcome`        what a scan may answer: backdoored, nothing found, or not established
- `training_set/`  which training images are poisoned, class and rate unknown
- `model/`         whether a model has a backdoor, for which target, and what opens it
- `recovered`      the trigger that a model scan found, as a picture and as a function
- `strip`          STRIP: is this input triggered? NumPy alone, so that the app can ask it
- `strip_fit`      STRIP fitted to a model of torch
- `metrics`        how good a detection or a repair was, with intervals; NumPy alone
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from purpleteam.defences.detection.metrics import Detection, evaluate_detection
    from purpleteam.defences.detection.model import MODEL_DETECTORS, ModelScan, scan_model
    from purpleteam.defences.detection.recovered import RecoveredTrigger
    from purpleteam.defences.detection.strip import Strip
    from purpleteam.defences.detection.strip_fit import fit_strip
    from purpleteam.defences.detection.training_set import (
        TRAINING_SET_DETECTORS,
        TrainingSetScan,
        scan_training_set,
    )

__all__ = [
    "MODEL_DETECTORS",
    "TRAINING_SET_DETECTORS",
    "Detection",
    "ModelScan",
    "RecoveredTrigger",
    "Strip",
    "TrainingSetScan",
    "evaluate_detection",
    "fit_strip",
    "scan_model",
    "scan_training_set",
]

_HOMES = {
    "metrics": ("Detection", "evaluate_detection"),
    "model": ("MODEL_DETECTORS", "ModelScan", "scan_model"),
    "recovered": ("RecoveredTrigger",),
    "strip": ("Strip",),
    "strip_fit": ("fit_strip",),
    "training_set": ("TRAINING_SET_DETECTORS", "TrainingSetScan", "scan_training_set"),
}


def __getattr__(name: str) -> object:
    # The app asks STRIP, which needs no torch; the scans do.
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module 'purpleteam.defences.detection' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
