"""Where and in what precision a net runs: a GPU and bfloat16 where they are faster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from purpleteam.core.errors import UsageError, unknown

__all__ = ["choose_device", "device_of", "fast_autocast", "frozen", "to_batch", "use_threads"]

MAX_THREADS = 256
"""Thousands of threads do not make torch slow, they bring the process down."""
_BF16_UNITS = ("avx512_bf16", "amx_bf16", "bf16")


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of that name; `auto` takes a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise UsageError(unknown("device", name, ("auto", "cpu", "cuda")))
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device 'cuda' is not here; known: auto, cpu")
    return torch.device(name)


def device_of(model: object) -> torch.device:
    """Return where a model's weights are; a plain function counts as on the CPU."""
    if isinstance(model, nn.Module):
        for tensor in model.parameters():
            return tensor.device
    return torch.device("cpu")


def use_threads(threads: int | None) -> int:
    """Set torch's threads (None leaves them) and return how many there are."""
    if threads is not None:
        if not 1 <= threads <= MAX_THREADS:
            raise UsageError(f"threads must be from 1 to {MAX_THREADS}, not {threads}")
        torch.set_num_threads(threads)
    return torch.get_num_threads()


@cache
def has_fast_bf16(device_type: str) -> bool:
    """Say whether bfloat16 is faster than float32 there, by what the hardware has."""
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return any(unit in flags for unit in _BF16_UNITS)


def fast_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return bfloat16 autocast where the hardware has units for it, else nothing."""
    if not has_fast_bf16(device.type):
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def to_batch(images: NDArray[np.uint8], device: torch.device | None = None) -> Tensor:
    """Return uint8 (N, H, W, C) as float32 (N, C, H, W) in [0, 1], channels last in memory."""
    batch = torch.from_numpy(np.array(images)).to(device or "cpu")
    return (batch.float() / 255).permute(0, 3, 1, 2)


@contextmanager
def frozen(model: object) -> Iterator[None]:
    """Put a net in eval mode without parameter gradients, and restore both at the end."""
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, before in wanted:
            parameter.requires_grad_(before)
