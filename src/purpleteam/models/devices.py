"""Where, in what order in memory and in what precision a net runs: as is fastest there."""

import copy
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.core.arrays import Pixels
from purpleteam.core.errors import UsageError, unknown
from purpleteam.core.machine import is_reproducible
from purpleteam.models.guard import Guarded, M, guarded, switched

MAX_THREADS = 256  # thousands do not make torch slow, they bring the process down
ALIKE = 1e-4  # largest difference, as a share of their spread, between two orders in memory
DEVICES = ("auto", "cpu", "cuda")
GPU_NAMES = ("gpu", "cuda", "nvidia", "rocm", "hip")  # torch calls AMD's `cuda` too
_BF16_UNITS = {"avx512_bf16", "amx_bf16", "bf16"}
_WITHOUT_BF16 = re.compile(r"SSE41|AVX|AVX2(_VNNI(_2)?)?|AVX512_CORE(_VNNI)?", re.IGNORECASE)
"""What ONEDNN_MAX_CPU_ISA may allow oneDNN at most, so that it emulates bfloat16."""


def _keep_what_is_freed() -> None:
    """Let glibc keep freed memory for the next layer, in blocks of up to 32 MiB.

    It gives blocks from 128 KiB on back to the system and asks for them anew, with pages that are
    zeroed each time. The limit becomes the size of the largest block that was freed
    (M_MMAP_THRESHOLD in mallopt(3)).
    """
    torch.empty(31 << 20, dtype=torch.uint8, device="cpu")


_keep_what_is_freed()


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of that name; `auto` takes a GPU where there is one."""
    if name not in DEVICES:
        if name.lower().partition(":")[0] not in GPU_NAMES:
            raise UsageError(unknown("device", name, DEVICES))
        first = "the first GPU that is visible is called 'cuda'"
        raise UsageError(f"unknown device {name!r}: {first}; known: {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device 'cuda' is not here; known: auto, cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
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
    """Say whether the hardware is faster in bfloat16; reproducible runs stay in float32."""
    if is_reproducible():
        return False
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if _WITHOUT_BF16.fullmatch(os.environ.get("ONEDNN_MAX_CPU_ISA", "")):
        return False  # emulated, which is far slower than float32
    with suppress(OSError):
        return not _BF16_UNITS.isdisjoint(Path("/proc/cpuinfo").read_text("utf-8").split())
    return False


def fast_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return bfloat16 autocast where the hardware has units for it, else nothing."""
    fast = has_fast_bf16(device.type)
    return torch.autocast(device.type, torch.bfloat16) if fast else nullcontext()


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Keep bfloat16 (an autocast around this too) and TF32 out of products: float32 is float32."""
    was = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = was


def to_batch(images: Pixels, device: torch.device | None = None) -> Tensor:
    """Return uint8 images (N, H, W, C) as float32 (N, C, H, W) in [0, 1], in torch's own order."""
    return channels_first(torch.from_numpy(np.array(images)).to(device or "cpu").float() / 255)


def channels_first(x: Tensor) -> Tensor:
    """Return (N, H, W, C) as (N, C, H, W) in torch's own order, which every net takes."""
    # A copy, because one channel is in both orders at once, and a convolution takes the other.
    return x.permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)


def lay_out(module: nn.Module, images: Tensor) -> None:
    """Put weights channels last in memory, as CPUs convolve fastest, where the net takes that."""
    if channels_last_copy(module, images.to(device_of(module))) is not None:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def channels_last_copy(module: M, images: Tensor) -> M | None:
    """Return a copy in eval mode with its weights channels last; None where it answers otherwise.

    A net that calls `view` on what a convolution gives fails, and one that reads its memory may
    answer otherwise: scores and slopes of noise of the images' shape (N, C, H, W) are compared.
    """
    rng = torch.Generator().manual_seed(0)
    x = torch.rand((2, *images.shape[1:]), generator=rng).to(images.device)
    answers = []
    try:
        moved = switched(copy.deepcopy(module))
        for layout in (torch.preserve_format, torch.channels_last):
            moved.to(memory_format=layout)  # type: ignore[call-overload]
            with forked(x.device):
                torch.manual_seed(0)
                answers.append(scores_and_slope(guarded(moved), x))
    except Exception:  # the net may be anybody's code; in its own order it is only slower
        return None
    for parts in zip(*answers, strict=True):
        before, after = (x.new_zeros(1) if part is None else part for part in parts)
        spread = before.amax() - before.amin()  # a difference beyond rounding, as a share of it
        if not (after - before).abs().amax() <= ALIKE * spread + 1e-6:
            return None
    return moved


def scores_and_slope(net: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the scores of images and the slope of a mixture of them; None where there is none."""
    asked = x.clone().requires_grad_(True)
    with torch.enable_grad():
        scores = net(asked)
        mixture = (scores * torch.linspace(-1, 1, scores.shape[1], device=x.device)).sum()
        if not mixture.requires_grad:
            return scores.detach(), None
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*autograd kernel was not registered")
            (slope,) = torch.autograd.grad(mixture, asked, allow_unused=True)
    return scores.detach(), slope


def forked(device: torch.device) -> AbstractContextManager[None]:
    """Leave torch's generators where they are, whatever a model draws."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


@contextmanager
def frozen(model: object) -> Iterator[Guarded]:
    """Put a net in eval mode without parameter gradients, and restore both at the end.

    Yields the guarded classifier. A net that `eval` does not reach, as an exported graph, may
    change its running statistics: they are restored too.
    """
    if not isinstance(model, nn.Module):
        yield guarded(model)
        return
    modes = [(module, module.training) for module in model.modules()]
    wanted = [
        (parameter, parameter.requires_grad)
        for parameter in model.parameters()
        if not parameter.is_inference()  # made in inference_mode: they take no change, nor gradient
    ]
    statistics: list[tuple[Tensor, Tensor]] = []
    try:
        switched(model)
        if any(part.training or isinstance(part, torch.fx.GraphModule) for part, _ in modes):
            statistics = [(buffer, buffer.clone()) for buffer in model.buffers()]
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        yield guarded(model)
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, before in wanted:
            parameter.requires_grad_(before)
        with torch.no_grad():
            for buffer, kept in statistics:
                buffer.copy_(kept)


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
