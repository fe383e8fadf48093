"""Bring a foreign checkpoint in: `scan`'s gate judges the file, `models` stores plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from purpleteam.core.digest import sha256_file
from purpleteam.core.errors import ModelError, UsageError
from purpleteam.models.architectures import Shape
from purpleteam.models.loading import build
from purpleteam.models.store import Provenance, put_weights, store
from purpleteam.scan.gate import read_state_dict

__all__ = ["Imported", "import_model"]


@dataclass(frozen=True)
class Imported:
    """What became of a foreign checkpoint."""

    verdict: str
    reasons: tuple[str, ...]
    model: Path | None = None
    digest: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `purple import --json`."""
        return {
            "model": None if self.model is None else str(self.model),
            "digest": self.digest,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
        }


def import_model(
    path: Path, architecture: str, out: Path, *, shape: Shape = (1, 28, 28), classes: int = 10
) -> Imported:
    """Judge a checkpoint, put its arrays into the architecture, and store the model.

    Args:
        path: a PyTorch state dict or a .safetensors file; it is never unpickled.
        architecture: a registered name or `module:factory`.
        out: where the stored model goes (stem, or any of its file names).
        shape: channels, height and width of the images that it takes.
        classes: number of its classes.
    """
    if not path.is_file():
        raise UsageError(f"checkpoint {str(path)!r} does not exist or is no file")
    net = build(architecture, shape, classes, seed=0)
    found = read_state_dict(path)
    if found.verdict != "accepted":
        return Imported("refused", tuple(found.reasons))
    tensors = {name: _float32(array) for name, array in found.tensors.items()}
    try:
        put_weights(net, tensors, str(path))
    except ModelError as error:
        return Imported("refused", (*found.reasons, str(error)))
    foreign = sorted({kind for kind in found.dtypes.values() if kind in FOREIGN})
    provenance = Provenance(
        architecture=architecture,
        shape=shape,
        classes=tuple(str(number) for number in range(classes)),
        recipe={},
        parent=sha256_file(path),
        converted_from=", ".join(foreign) or None,
    )
    try:
        stored = store(net, out, provenance)
    except ModelError as error:
        return Imported("refused", (*found.reasons, str(error)))
    return Imported("accepted", tuple(found.reasons), stored.weights, stored.card.digest)


FOREIGN = ("float16", "bfloat16", "float64")


def _float32(array: np.ndarray[Any, np.dtype[Any]]) -> torch.Tensor:
    kept = array.astype(np.float32) if array.dtype.kind == "f" else array
    return torch.from_numpy(np.array(kept))
