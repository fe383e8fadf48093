"""A state dict as somebody wrote it, under the names of the net that it is for.

What wrappers do to names is undone and said; what does not fit after that is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from purpleteam.core.digest import sha256_bytes
from purpleteam.models.store import put_weights, read_safetensors

__all__ = [
    "Weights",
    "WeightsReader",
    "as_float32",
    "digest_of",
    "fill",
    "other_floats",
    "plain_weights",
    "tensors_of",
]

ANYWHERE = "_orig_mod"
"""What torch.compile puts into names, before whichever part was compiled."""

PREFIXES = ("module.", "model.", "net.")
"""What DataParallel, Lightning and the like put before every name."""

COUNTER = "num_batches_tracked"
"""Batch normalisation's counter: not written before torch 0.4.1, without use in eval mode."""

AVERAGED = "n_averaged"
"""The counter that torch's AveragedModel (SWA, EMA) writes beside the weights."""


@dataclass(frozen=True)
class Weights:
    """Tensors by name, with what was changed while they were read."""

    tensors: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()
    other_floats: str | None = None
    """The number formats in the file that became float32, where a reader has made them so."""


WeightsReader = Callable[[Path], Weights]
"""Reads a file of weights and runs nothing in it; it refuses what it does not understand."""


def plain_weights(path: Path) -> Weights:
    """Return the tensors of a .safetensors file."""
    return Weights(read_safetensors(path))


def fill(module: nn.Module, weights: Weights, source: str) -> tuple[str, ...]:
    """Put the weights into `module` as float32 and return what had to be changed, line by line.

    Raises:
        ModelError: tensors are missing, left over, of another shape or not finite; each is named.
    """
    notes = [*weights.notes, *as_float32(module)]
    wanted = module.state_dict()
    tensors = _renamed(weights.tensors, wanted, notes)
    put_weights(module, tensors, source)
    if odd := other_floats(tensors):
        notes.append(f"{odd} converted to float32")
    return tuple(notes)


def as_float32(module: nn.Module) -> tuple[str, ...]:
    """Make a net float32, and say what it was where it was not."""
    odd = other_floats(module.state_dict())
    module.float()
    return (f"the factory's net is {odd}: made float32",) if odd else ()


def digest_of(net: nn.Module) -> str:
    """Return the SHA-256 of a net's state dict, its tensors written as safetensors."""
    state = tensors_of(net.state_dict())
    return sha256_bytes(save({name: one.contiguous().clone() for name, one in state.items()}))


def tensors_of(state: object, name: str = "") -> dict[str, Tensor]:
    """Return the tensors of a state dict, those in the packed parts of quantised layers included.

    Quantised ones come as the numbers that they stand for.
    """
    if isinstance(state, Tensor):
        return {name: (state.dequantize() if state.is_quantized else state).detach().cpu()}
    if isinstance(state, Mapping):
        parts = {str(key): value for key, value in state.items()}
    elif isinstance(state, tuple | list):
        parts = {str(number): value for number, value in enumerate(state)}
    else:
        return {}
    found: dict[str, Tensor] = {}
    for key, value in parts.items():
        found |= tensors_of(value, f"{name}.{key}" if name else key)
    return found


def other_floats(tensors: Mapping[str, object]) -> str:
    """Return the number formats that are not float32, with commas; empty where there is none."""
    kinds = {
        value.dtype
        for value in tensors.values()
        if isinstance(value, Tensor) and value.is_floating_point()
    }
    return ", ".join(sorted(str(one).removeprefix("torch.") for one in kinds - {torch.float32}))


def _renamed(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], notes: list[str]
) -> dict[str, Tensor]:
    """Return the tensors under the wanted names, where only wrappers made the difference."""
    names = _renaming(list(tensors), list(wanted))
    changed = [(name, new) for name, new in names.items() if name != new]
    if changed:
        notes.append(f"names brought to the net's own: {changed[0][0]!r} is {changed[0][1]!r}")
    result = {names[name]: value for name, value in tensors.items()}
    if AVERAGED not in wanted and result.pop(AVERAGED, None) is not None:
        notes.append(f"weights averaged while they were trained ({AVERAGED!r} is left out)")
    counters = [name for name in wanted if name.endswith(COUNTER) and name not in result]
    if counters:
        notes.append(f"{COUNTER} is missing {len(counters)} times: it has no use in eval mode")
    return result | {name: wanted[name] for name in counters}


def _renaming(names: list[str], wanted: list[str]) -> dict[str, str]:
    """Return the wanted name of each name; where none is nearer, the name itself."""
    ours = dict(zip(_bare(wanted), wanted, strict=True))
    theirs = dict(zip(names, _bare(names), strict=True))
    same = {name: name for name in names}
    if len(ours) != len(wanted) or len(set(theirs.values())) != len(names):
        return same
    renamed = {name: ours.get(bare, name) for name, bare in theirs.items()}
    fitting = [len(set(wanted) & set(one.values())) for one in (same, renamed)]
    return renamed if fitting[1] > fitting[0] else same


def _bare(names: list[str]) -> list[str]:
    """Return the names without what wrappers put into them, which is before most of them."""
    found = [".".join(part for part in name.split(".") if part != ANYWHERE) for name in names]
    while shared := [one for one in PREFIXES if 2 * _having(one, found) > len(found)]:
        found = [name.removeprefix(shared[0]) for name in found]
    return found


def _having(prefix: str, names: list[str]) -> int:
    return sum(name.startswith(prefix) for name in names)
