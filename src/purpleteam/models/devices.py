"""Where, in what order in memory and in what precision a net runs: as is fastest there."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from purpleteam.core.errors import UsageError, unknown
from purpleteam.core.reproducible import is_reproducible

__all__ = [
    "channels_first",
    "choose_device",
    "device_of",
    "fast_autocast",
    "frozen",
    "lay_out",
    "planes",
    "to_batch",
    "use_threads",
]

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
    if is_reproducible():
        return False
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
    """Return uint8 images (N, H, W, C) as float32 (N, C, H, W) in [0, 1], in torch's own order."""
    return planes(torch.from_numpy(np.array(images)).to(device or "cpu"))


def planes(pixels: Tensor) -> Tensor:
    """Return uint8 (N, H, W, C) as float32 (N, C, H, W) in [0, 1], in torch's own order."""
    return channels_first(pixels.float() / 255)


def channels_first(x: Tensor) -> Tensor:
    """Return (N, H, W, C) as (N, C, H, W) in torch's own order, which every net takes.

    A copy, because one channel is in both orders at once, and a convolution takes the other.
    """
    return x.permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)


def lay_out(module: nn.Module, images: Tensor) -> None:
    """Put a net's weights channels last in memory, which CPUs convolve faster, where it takes that.

    What a convolution gives is then in that order too, and a net that calls `view` on it fails:
    such a net is left as it was written.

    Args:
        module: the net, changed in place; no number of it changes.
        images: (N, C, H, W), such as it takes; two of them are shown to a copy.
    """
    try:
        moved = copy.deepcopy(module).eval()
        moved.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            moved(images[:2].to(device_of(module)))
    except Exception:  # the net may be anybody's code; in its own order it is only slower
        return
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


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


def _correctly_rounded_roots() -> torch.library.Library:
    """Put NumPy's square root in the place of MKL's, which rounds differently by processor."""

    def root(x: Tensor) -> Tensor:
        wide = x.detach().to(x.dtype if x.dtype == torch.float64 else torch.float32)
        exact = torch.from_numpy(np.asarray(np.sqrt(wide.numpy())))
        return exact.to(x.dtype) if x.is_floating_point() else exact

    kernels: dict[str, Callable[..., Tensor]] = {
        "sqrt": root,
        "sqrt_": lambda x: x.copy_(root(x)),
        "sqrt.out": lambda x, *, out: out.copy_(root(x)),
    }
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a kernel of torch is overridden is meant
        for name, kernel in kernels.items():
            library.impl(name, kernel, "CPU")  # type: ignore[no-untyped-call]
    return library


if is_reproducible():
    ROOTS = _correctly_rounded_roots()  # as long as it lives
