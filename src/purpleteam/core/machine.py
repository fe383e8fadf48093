"""Who runs on what: the actor, the machine, the versions and kernels that shape numbers.

For `--reproducible` the command starts itself anew, since libraries read these settings when they
are loaded. ONNX Runtime has no such setting: what it answers may differ in the last bits.
"""

import getpass
import os
import platform
import sys
from contextlib import suppress
from importlib import metadata
from typing import Any

KERNELS = {
    "MKL_CBWR": "COMPATIBLE",
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Nehalem",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4",
}
"""What torch, MKL, oneDNN, OpenBLAS, NumPy and the C library read from the environment."""


def versions() -> dict[str, str]:
    """Return the versions of Purpleteam, Python and the packages that shape numbers."""
    known = {"python": platform.python_version()}
    for name in ("purpleteam", "torch", "numpy", "onnxruntime", "safetensors", "bandit"):
        with suppress(metadata.PackageNotFoundError):
            known[name] = metadata.version(name)
    return known


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


def is_reproducible() -> bool:
    """Say whether this process computes as every x86 processor does."""
    return all(os.environ.get(name) == value for name, value in KERNELS.items())


def restart() -> None:
    """Start this command anew under the settings, unless it runs under them already."""
    if not is_reproducible():
        command = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, command, os.environ | KERNELS)  # noqa: S606
