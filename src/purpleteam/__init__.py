"""Red- and blue-team an image classifier on one desk, and prove what you claim.

The rooms, in the order of the flow; each imports only what comes before it:

    core      records, statistics, checks, run folder        (no torch)
    data      IDX, MNIST, digits, folders, drawings          (no torch)
    models    architectures, training, evaluation, store
    attacks   evasion, poison, robust accuracy, soundness
    certify   what no adversary within a bound can change
    defences  adversarial training; backdoors found and taken out
    scan | threats | serve | report                          (no torch, siblings)
    pipeline  the stages top to bottom;  cli: a thin skin

Importing the package is instant: each room is loaded when it is first named.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

# ONNX Runtime otherwise looks up its maker's collector and keeps a device id in the user's cache.
# It reads this when it is imported, and nothing of this package is imported before this line.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"

ROOMS = (
    *("core", "data", "models", "attacks", "certify", "defences"),
    *("scan", "threats", "serve", "report"),
)

__all__ = ["ROOMS", "__version__"]


def __getattr__(name: str) -> ModuleType:
    if name in ROOMS or name == "pipeline":
        return importlib.import_module(f"purpleteam.{name}")
    raise AttributeError(f"module 'purpleteam' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *ROOMS])
