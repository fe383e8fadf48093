"""Defences: make a model harder to break, find what was planted, take it out; instant to import.

- `training/` adversarial, certified, private; `detection/` backdoors in a set, a model or an input
- `repair/` a backdoored model made good again; `evaluate` a defence measured
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from purpleteam.defences.detection.metrics import evaluate_detection
    from purpleteam.defences.detection.model import MODEL_DETECTORS, scan_model
    from purpleteam.defences.detection.strip import Strip
    from purpleteam.defences.detection.strip_fit import fit_strip
    from purpleteam.defences.detection.training_set import TRAINING_SET_DETECTORS, scan_training_set
    from purpleteam.defences.evaluate import evaluate_repair, repoison, run_repair
    from purpleteam.defences.repair import REPAIRS, Repairing
    from purpleteam.defences.training import DEFENCES, BallDefence, Defence, Hardening

__all__ = ["DEFENCES", "MODEL_DETECTORS", "REPAIRS", "TRAINING_SET_DETECTORS"]
__all__ += [
    "BallDefence",
    "Defence",
    "Hardening",
    "Repairing",
    "Strip",
    "evaluate_detection",
    "evaluate_repair",
    "fit_strip",
]
__all__ += ["repoison", "run_repair", "scan_model", "scan_training_set"]

_HOMES = (
    *("detection.strip", "detection.metrics"),  # first: the app asks these, which need no torch
    *("training", "repair", "evaluate"),
    *("detection.strip_fit", "detection.model", "detection.training_set"),
)


def __getattr__(name: str) -> object:
    for home in _HOMES if name in __all__ else ():
        if hasattr(module := import_module(f"{__name__}.{home}"), name):
            return getattr(module, name)
    raise AttributeError(f"module 'purpleteam.defences' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
