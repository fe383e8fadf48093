"""The gate for foreign weights: plain arrays, or a refusal that says why and what to do.

Nothing of a file is ever executed or unpickled: what is not understood is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import ModelError
from purpleteam.scan.formats.problem import Problem
from purpleteam.scan.formats.safetensors import read_safetensors
from purpleteam.scan.formats.sniff import MODEL_SUFFIXES, mapped, sniff
from purpleteam.scan.formats.tensors import Tensor
from purpleteam.scan.formats.torch_file import StoredTensor, open_archive

MAX_BYTES = 64 << 30
MAX_SHARING = 8  # how often the tensors may use the bytes of the file, as tied weights do
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
PREFIXES = ("module.", "_orig_mod.")
ALONE = "if it is a whole module or a checkpoint, save model.state_dict() alone where it was made"
ADVICE = {
    "pickle": "a raw pickle or a torch file from before version 1.6; load it where it was made and "
    "save model.state_dict() again, best as safetensors",
    "tar": "a tar archive, as torch wrote before version 0.2; save model.state_dict() again",
    "onnx": "an ONNX file, which is a finished net; import its weights as safetensors",
    "numpy": "a NumPy file; save the weights as safetensors",
    "hdf5": "an HDF5 file (Keras); save the weights as safetensors",
}


@dataclass(frozen=True, kw_only=True)
class GateVerdict:
    """What the gate says of one file; the tensors are there only where it was accepted."""

    verdict: Literal["accepted", "refused"]
    reasons: tuple[str, ...]
    """Why it was refused; where it was accepted, what was changed on the way."""
    tensors: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """By name; every float format has become float32. Some are read-only views of the file."""
    dtypes: Mapping[str, str] = field(default_factory=dict)
    """The number format of each tensor in the file."""


def read_state_dict(path: Path) -> GateVerdict:
    """Return the tensors of a foreign file, or why it is refused.

    Raises:
        ModelError: the file does not exist or cannot be read.
    """
    notes: list[str] = []
    try:
        if not path.is_file():
            raise ModelError(f"model file {str(path)!r} does not exist")
        tensors = _read(path, notes)
        arrays = {}
        for name, tensor in tensors.items():
            for problem in tensor.problems(name):
                raise problem
            arrays[name] = tensor.converted()
            if tensor.dtype == "float64" and not np.isfinite(arrays[name]).all():
                raise Problem("not-finite", f"tensor {name!r} does not fit float32")
    except Problem as problem:
        advice = f"; {ALONE}" if problem.kind == "unsafe-global" else ""
        return GateVerdict(verdict="refused", reasons=(f"{problem}{advice}",))
    except OSError as error:
        raise ModelError(f"model file {str(path)!r} cannot be read: {error}") from None
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    if wide := sorted({kind for kind in dtypes.values() if "float" in kind} - {"float32"}):
        notes.append(f"{', '.join(wide)} converted to float32")
    return GateVerdict(verdict="accepted", reasons=tuple(notes), tensors=arrays, dtypes=dtypes)


def _read(path: Path, notes: list[str]) -> dict[str, Tensor]:
    if (size := path.stat().st_size) > MAX_BYTES:
        raise Problem("bomb", f"the file has {size} bytes; at most {MAX_BYTES}")
    kind, suffix = sniff(path), path.suffix.lower()
    if kind in ("safetensors", "zip") and kind not in MODEL_SUFFIXES.get(suffix, (kind,)):
        why = f"the file is named {suffix} and holds {kind}"
        raise Problem("name", f"{why}; give it the name of its content")
    if kind == "safetensors":
        tensors, odd = read_safetensors(mapped(path))
        for problem in odd:
            raise problem
    elif kind == "zip":
        stored, storages = open_archive(mapped(path))
        if not isinstance(stored, dict):
            raise Problem("tensor", "the file holds no dict of tensors; save model.state_dict()")
        if not _is_state(stored):
            inner = [key for key in WRAPPERS if _is_state(stored.get(key))]
            if len(inner) != 1:
                held = "several state dicts" if inner else "no state dict"
                held += f" (keys: {', '.join(map(repr, list(stored)[:8]))})"
                raise Problem("tensor", f"the file holds {held}; save model.state_dict()")
            notes.append(f"weights taken from key {inner[0]!r}; the rest of the file is left out")
            stored = stored[inner[0]]
        total = sum(row.bytes for row in stored.values())
        if total > MAX_SHARING * (size := sum(map(len, storages.values()))):
            raise Problem("bomb", f"the tensors need {total} bytes, and the file holds {size}")
        tensors = {name: row.read(storages[row.storage.key]) for name, row in stored.items()}
    else:
        raise Problem("unknown-format", f"the file is {ADVICE.get(kind, f'of kind {kind!r}')}")
    if not tensors:
        raise Problem("tensor", "the file holds no tensor")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) and name != prefix for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
            notes.append(f"prefix {prefix!r} taken off every name")
    return tensors


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(
            isinstance(key, str) and 0 < len(key) <= 500 and isinstance(item, StoredTensor)
            for key, item in value.items()
        )
    )
