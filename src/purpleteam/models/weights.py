"""A state dict as somebody wrote it, put into the net that it is for: names that wrappers made."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import ModelError

MOST_NAMES = 1000  # among which the nearest is looked for
ANYWHERE = "_orig_mod"  # what torch.compile puts into names, before whichever part was compiled
PREFIXES = ("module.", "model.", "net.")  # as DataParallel and Lightning put before every name
COUNTER = "num_batches_tracked"  # of batch normalisation: not written before torch 0.4.1
AVERAGED = "n_averaged"  # the counter that torch's AveragedModel (SWA, EMA) writes


@dataclass(frozen=True)
class Weights:
    """Tensors by name, with what was changed while they were read."""

    tensors: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()
    other_floats: str | None = None  # number formats in the file that a reader made float32


WeightsReader = Callable[[Path], Weights]  # runs nothing, and refuses what it does not understand


def plain_weights(path: Path) -> Weights:
    """Return the tensors of a .safetensors file as they are in it."""
    if path.suffix != ".safetensors":
        remedy = f"purple import {path} --arch NAME"
        raise ModelError(f"weights {str(path)!r} are not .safetensors; make them so with: {remedy}")
    try:
        return Weights(load_file(path))
    except (OSError, SafetensorError) as error:
        raise ModelError(f"weights {str(path)!r} cannot be read: {error}") from None


def put_weights(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Put tensors into `module`; those missing, left over, misshapen or not finite are named."""
    wanted = module.state_dict()
    if other := [name for name, value in wanted.items() if not isinstance(value, Tensor)]:
        raise ModelError(
            f"the net holds more than tensors in {other[0]!r}, as quantised ones do: load its "
            "weights in its factory, and leave --weights out"
        )
    left_over = [name for name in tensors if name not in wanted]
    problems = []
    for name in wanted:
        if name not in tensors:
            near = difflib.get_close_matches(name, left_over[:MOST_NAMES], n=1)
            problems.append(f"missing {name!r}" + (f" (the file has {near[0]!r})" if near else ""))
    problems += [f"left over {name!r}" for name in left_over]
    for name in wanted.keys() & tensors.keys():
        have, need = tuple(tensors[name].shape), tuple(wanted[name].shape)
        if have != need:
            problems.append(f"{name!r} has shape {have}, not {need}")
        elif tensors[name].is_floating_point() and not torch.isfinite(tensors[name]).all():
            problems.append(f"{name!r} holds NaN or infinity")
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise ModelError(f"weights {source!r} do not fit: {'; '.join(problems[:4])}{more}")
    module.load_state_dict(tensors)


def fill(module: nn.Module, weights: Weights, source: str) -> tuple[str, ...]:
    """Put the weights into `module` as float32 and return what had to be changed, line by line."""
    notes = [*weights.notes, *as_float32(module)]
    wanted = module.state_dict()
    names = _renaming(list(weights.tensors), list(wanted))
    if changed := [(name, new) for name, new in names.items() if name != new]:
        notes.append(f"names brought to the net's own: {changed[0][0]!r} is {changed[0][1]!r}")
    tensors = {names[name]: value for name, value in weights.tensors.items()}
    if AVERAGED not in wanted and tensors.pop(AVERAGED, None) is not None:
        notes.append(f"weights averaged while they were trained ({AVERAGED!r} is left out)")
    counters = [name for name in wanted if name.endswith(COUNTER) and name not in tensors]
    if counters:
        notes.append(f"{COUNTER} is missing {len(counters)} times: it has no use in eval mode")
    tensors |= {name: wanted[name] for name in counters}
    put_weights(module, tensors, source)
    if odd := other_floats(tensors):
        notes.append(f"{odd} converted to float32")
    return tuple(notes)


def as_float32(module: nn.Module, whose: str = "the factory's net") -> tuple[str, ...]:
    """Make a net float32, and note what it was where it was not."""
    odd = other_floats(module.state_dict())
    module.float()
    return (f"{whose} is {odd}: made float32",) if odd else ()


def owned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return each tensor by itself (tied weights share memory), as safetensors takes them."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def digest_of(net: nn.Module | Mapping[str, Tensor], *texts: str) -> str:
    """Return the SHA-256 of a state dict, its tensors written as safetensors, and of texts."""
    state = tensors_of(net.state_dict() if isinstance(net, nn.Module) else net)
    return sha256_bytes(save(owned(state)), *(text.encode() for text in texts))


def tensors_of(state: object, name: str = "") -> dict[str, Tensor]:
    """Return the tensors of a state dict, also in packed parts; quantised ones as their numbers."""
    if isinstance(state, Tensor):
        return {name: (state.dequantize() if state.is_quantized else state).detach().cpu()}
    if isinstance(state, tuple | list):
        state = dict(enumerate(state))
    tensors: dict[str, Tensor] = {}
    for key, value in state.items() if isinstance(state, Mapping) else ():
        tensors |= tensors_of(value, f"{name}.{key}" if name else str(key))
    return tensors


def other_floats(tensors: Mapping[str, object]) -> str:
    """Return the number formats that are not float32, with commas; empty where there is none."""
    kinds = {value.dtype for value in tensors.values() if isinstance(value, Tensor)}
    odd = {kind for kind in kinds - {torch.float32} if kind.is_floating_point}
    return ", ".join(sorted(str(kind).removeprefix("torch.") for kind in odd))


def _renaming(names: list[str], wanted: list[str]) -> dict[str, str]:
    """Return the wanted name of each name, where only wrappers made the difference."""
    by_bare = dict(zip(_bare(wanted), wanted, strict=True))
    bare = dict(zip(names, _bare(names), strict=True))
    same = {name: name for name in names}
    if len(by_bare) != len(wanted) or len(set(bare.values())) != len(names):
        return same
    renamed = {name: by_bare.get(short, name) for name, short in bare.items()}
    fitting = [len(set(wanted) & set(mapping.values())) for mapping in (same, renamed)]
    return renamed if fitting[1] > fitting[0] else same


def _bare(names: list[str]) -> list[str]:
    """Return the names without what wrappers put into them, which is before most of them."""
    bare = [".".join(part for part in name.split(".") if part != ANYWHERE) for name in names]
    while shared := [
        prefix
        for prefix in PREFIXES
        if 2 * sum(name.startswith(prefix) for name in bare) > len(bare)
    ]:
        bare = [name.removeprefix(shared[0]) for name in bare]
    return bare
