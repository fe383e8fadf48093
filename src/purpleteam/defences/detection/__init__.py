"""Find backdoors: in a training set, in a trained model and at input time; instant to import.

- `outcome`        what a scan may answer: backdoored, nothing found, or not established
- `training_set/`  which training images are poisoned, class and rate unknown
- `model/`         whether a model has a backdoor, for which target, and what opens it
- `recovered`      the trigger that a model scan found, as a picture and as a function
- `strip`          STRIP: is this input triggered? NumPy alone, so that the app can ask it
- `strip_fit`      STRIP fitted to a model of torch
- `metrics`        how good a detection or a repair was, with intervals; NumPy alone
- `judging`        all that can be said of a detector on one set whose poisons are known
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from purpleteam.defences.detection.judging import Detection, judge
    from purpleteam.defences.detection.model import ModelScan, scan_model
    from purpleteam.defences.detection.strip import Strip
    from purpleteam.defences.detection.strip_fit import fit_strip, probabilities_of
    from purpleteam.defences.detection.training_set import TrainingSetScan, scan_training_set

__all__ = [
    "Detection",
    "ModelScan",
    "Strip",
    "TrainingSetScan",
    "fit_strip",
    "judge",
    "probabilities_of",
    "scan_model",
    "scan_training_set",
]

_HOMES = {
    "Detection": "judging",
    "ModelScan": "model",
    "Strip": "strip",
    "TrainingSetScan": "training_set",
    "fit_strip": "strip_fit",
    "judge": "judging",
    "probabilities_of": "strip_fit",
    "scan_model": "model",
    "scan_training_set": "training_set",
}


def __getattr__(name: str) -> object:
    # The app asks STRIP, which needs no torch; the scans do.
    if name not in _HOMES:
        raise AttributeError(f"module 'purpleteam.defences.detection' has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
