"""Red- and blue-team an image classifier on one desk, and prove what you claim.

    import purpleteam as pt
    pt.attack(model, images, labels, attack="pgd", epsilon=8 / 255)

The verbs are functions of this package: `train`, `evaluate`, `poison`, `attack`, `harden`,
`detect`, `repair`, `certify`, `privacy`, `import_model`, `export`, `scan`, `threats`. The rooms, in
the order of the flow; each imports only what comes before it:

    core      records, statistics, checks, run folder        (no torch)
    data      IDX, MNIST, digits, folders, drawings          (no torch)
    models    architectures, training, evaluation, store
    attacks   evasion, poison, robust accuracy, soundness
    certify   what no adversary within a bound can change
    defences  adversarial training; backdoors found and taken out
    privacy   training images recognised, models copied, images rebuilt
    scan | threats | serve | report                          (no torch, siblings)
    verbs     one function a verb: what command line, pipeline and notebook call
    pipeline  the stages top to bottom;  cli: parses and shows

What this package, `verbs` and the rooms export by `__all__` is the public interface (docs/api.md);
everything else is internal. Importing the package is instant: a room is loaded when it is first
named. Four rooms bear the name of a verb and can be called as it: `pt.scan("file.py")` is
`pt.verbs.scan("file.py")`.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

# ONNX Runtime otherwise looks up its maker's collector and keeps a device id in the user's cache.
# It reads this when it is imported, and nothing of this package is imported before this line.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

if TYPE_CHECKING:
    from purpleteam.verbs import (
        attack,
        detect,
        evaluate,
        export,
        harden,
        import_model,
        poison,
        repair,
        train,
    )

__version__ = "0.1.0"

ROOMS: tuple[str, ...] = ("core", "data", "models", "attacks", "certify", "defences")
ROOMS += ("privacy", "scan", "threats", "serve", "report")
LAYERS = (*ROOMS, "verbs", "pipeline")

__all__ = ["ROOMS", "__version__", "attack", "detect", "evaluate", "export", "harden"]
__all__ += ["import_model", "poison", "repair", "train"]


class _Room(ModuleType):
    """A room that bears the name of a verb: called, it is the verb."""

    def __call__(self, *args: Any, **given: Any) -> Any:
        verbs = importlib.import_module("purpleteam.verbs")
        return getattr(verbs, self.__name__.rpartition(".")[2])(*args, **given)


class _Package(ModuleType):
    """This package: it hands out rooms and verbs when they are first named."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in ("certify", "privacy", "scan", "threats") and type(value) is ModuleType:
            value.__class__ = _Room  # set by the import system, after the room is loaded
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name in LAYERS:
            return importlib.import_module(f"purpleteam.{name}")
        if name in __all__:
            return getattr(importlib.import_module("purpleteam.verbs"), name)
        raise AttributeError(f"module 'purpleteam' has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted([*__all__, *LAYERS])


sys.modules[__name__].__class__ = _Package
