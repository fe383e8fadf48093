"""All checks of all rooms: importing their modules registers them in `core`'s CHECKS."""

from __future__ import annotations

import importlib
from contextlib import suppress

ROOMS = (
    "purpleteam.core.verification",
    "purpleteam.data.checks",
    "purpleteam.models.checks",
    "purpleteam.attacks.checks",
    "purpleteam.defences.checks",
    "purpleteam.scan.checks",
    "purpleteam.serve.checks",
)


def load_checks() -> None:
    """Register the checks of every room whose packages are installed."""
    for room in ROOMS:
        with suppress(ModuleNotFoundError):
            importlib.import_module(room)
