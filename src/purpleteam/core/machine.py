"""Who runs on what: the actor, the machine, and the versions of what shapes numbers."""

from __future__ import annotations

import getpass
import os
import platform
from contextlib import suppress
from importlib import metadata
from typing import Any

from purpleteam.core.reproducible import is_reproducible


def versions() -> dict[str, str]:
    """Return the versions of Purpleteam, Python and the packages that shape numbers."""
    found = {"python": platform.python_version()}
    for name in ("purpleteam", "torch", "numpy", "onnxruntime", "safetensors", "bandit"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def machine() -> dict[str, Any]:
    """Return what the machine is, without anything that names it."""
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count() or 1,
        "kernels": "reproducible" if is_reproducible() else "fastest",
    }


def actor() -> str:
    """Return who is logged in."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
