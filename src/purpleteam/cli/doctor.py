"""What this machine has for Purpleteam, found without importing anything heavy."""

from __future__ import annotations

import os
import platform
from importlib import metadata, util
from typing import Any

__all__ = ["examine"]

EXTRAS = {
    "torch": "lab",
    "sklearn": "lab",
    "onnx": "lab",
    "onnxruntime": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
    "bandit": "base",
}


def examine() -> list[dict[str, Any]]:
    """Return one entry for each thing looked at: what, ok, detail."""
    found = [_entry("python", True, platform.python_version())]
    found.append(_entry("cores", True, str(os.cpu_count())))
    found += [_package(name, extra) for name, extra in EXTRAS.items()]
    found.append(_torch_build())
    found.append(_mnist())
    return found


def _entry(what: str, ok: bool, detail: str) -> dict[str, Any]:
    return {"what": what, "ok": ok, "detail": detail}


def _package(name: str, extra: str) -> dict[str, Any]:
    if not _present(name):
        return _entry(name, False, f"pip install 'purpleteam[{extra}]'")
    distribution = "scikit-learn" if name == "sklearn" else name
    return _entry(name, True, metadata.version(distribution))


def _present(name: str) -> bool:
    try:
        return util.find_spec(name) is not None
    except ImportError:
        return False


def _torch_build() -> dict[str, Any]:
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return _entry("torch build", False, "pip install 'purpleteam[lab]'; see the README for CPU")
    cuda = any(name.startswith("nvidia-") for name in _distributions())
    return _entry("torch build", True, f"{version}, {'CUDA' if cuda else 'CPU'}")


def _distributions() -> list[str]:
    return [str(one.metadata["Name"]).lower() for one in metadata.distributions()]


def _mnist() -> dict[str, Any]:
    from purpleteam.core.errors import PurpleError
    from purpleteam.data.sources.mnist import find_mnist

    try:
        folder = find_mnist()
    except PurpleError as error:
        return _entry("MNIST", False, str(error))
    if folder is None:
        return _entry("MNIST", False, "purple data fetch mnist, or point PURPLETEAM_DATA at it")
    return _entry("MNIST", True, str(folder))
