"""The gate for foreign weights: plain arrays, or a refusal that says why and what to do.

Nothing of a file is ever executed or unpickled: what is not understood is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from purpleteam.core.errors import ModelError
from purpleteam.scan.formats.problem import GRADES, Grade
from purpleteam.scan.judgement import judge

PREFIXES = ("module.", "_orig_mod.")
ALONE = "if it is a whole module or a checkpoint, save model.state_dict() alone where it was made"
ADVICE = {
    "pickle": "a raw pickle; load it where it was made and save model.state_dict() again, best as "
    "safetensors",
    "tar": "a tar archive, as torch wrote before version 0.2; save model.state_dict() again",
    "onnx": "an ONNX file, which is a finished net; import its weights as safetensors",
    "numpy": "a NumPy file; save the weights as safetensors",
    "hdf5": "an HDF5 file (Keras); save the weights as safetensors",
}


@dataclass(frozen=True, kw_only=True)
class GateVerdict:
    """What the gate says of one file; the tensors are there only where it was accepted."""

    verdict: Literal["accepted", "refused"]
    grade: Grade
    """The worst of what `judge` found, as a scan tells it; `unsupported` also where a harmless
    file holds no state dict."""
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
    try:
        if not path.is_file():
            raise ModelError(f"model file {str(path)!r} does not exist")
        judged = judge(path)
    except OSError as error:
        raise ModelError(f"model file {str(path)!r} cannot be read: {error}") from None
    notes = [*judged.notes]
    if not judged.tensors:
        found = judged.problems
        reasons = [str(row) for row in found if row.grade not in ("note", "unsupported")]
        reasons = reasons or [str(row) for row in found if row.kind == "unsupported"]
        if judged.tensors == {}:
            reasons = reasons or ["the file holds no tensor"]
        if judged.kind in ADVICE or not reasons:
            reasons.append(f"the file is {ADVICE.get(judged.kind, f'of kind {judged.kind!r}')}")
        code = any(row.kind in ("unsafe-global", "foreign-code", "unsupported") for row in found)
        if code and "state_dict()" not in reasons[0]:
            reasons[0] += f"; {ALONE}"
        grade = max(judged.grade, "unsupported", key=GRADES.index)
        return GateVerdict(verdict="refused", grade=grade, reasons=tuple(reasons))
    arrays = {name: read().converted() for name, read in judged.tensors.items()}
    dtypes = dict(judged.dtypes)
    for prefix in PREFIXES:
        if all(name.startswith(prefix) and name != prefix for name in arrays):
            arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
            dtypes = {name.removeprefix(prefix): dtype for name, dtype in dtypes.items()}
            notes.append(f"prefix {prefix!r} taken off every name")
    if wide := sorted({kind for kind in dtypes.values() if "float" in kind} - {"float32"}):
        notes.append(f"{', '.join(wide)} converted to float32")
    return GateVerdict(
        verdict="accepted", grade=judged.grade, reasons=tuple(notes), tensors=arrays, dtypes=dtypes
    )
