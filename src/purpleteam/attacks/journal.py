"""Where an evaluation stands, on disk, so that a killed one goes on where it was.

A folder holds one file for each finished batch, written whole or not at all, and named by the
attack's place in the ladder and the images in it. Who opens a journal names everything that the
results depend on; another model, image or setting has another folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.attacks.outcomes import Arrays
from purpleteam.core.digest import canonical_json, sha256_bytes


class Journal:
    """Finished batches of one evaluation. A folder that cannot be written keeps nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, facts: Mapping[str, Any], root: Path | None = None) -> Journal:
        """Return the journal of the evaluation that `facts` name in full; by default in a cache."""
        base = os.environ.get("XDG_CACHE_HOME")
        cache = Path(base) if base else Path.home() / ".cache"
        key = sha256_bytes(canonical_json(facts).encode()).removeprefix("sha256:")
        return cls((root or cache / "purpleteam" / "evaluations") / key[:24])

    @property
    def batches(self) -> int:
        """Number of finished batches that are kept."""
        return len(list(self.folder.rglob("*.npz")))

    def part(self, name: str) -> Journal:
        """Return the journal of one part of the evaluation."""
        return Journal(self.folder / name)

    def load(self, rung: int, index: NDArray[np.int64]) -> Arrays | None:
        """Return what that attack did to these images, if it has been done."""
        try:
            with self._file(rung, index).open("rb") as file:
                kept = np.load(file, allow_pickle=False)
                return {name: kept[name] for name in kept.files}
        except (OSError, ValueError, zipfile.BadZipFile):
            return None

    def save(self, rung: int, index: NDArray[np.int64], arrays: Arrays) -> None:
        """Keep what an attack did to these images."""
        path = self._file(rung, index)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            partial.replace(path)
        except OSError:  # no room, no right: the evaluation goes on without a journal
            with contextlib.suppress(OSError):
                partial.unlink()

    def remove(self) -> None:
        """Forget the evaluation: it is finished, and its results are elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, rung: int, index: NDArray[np.int64]) -> Path:
        images = hashlib.sha256(np.ascontiguousarray(index, np.int64).tobytes()).hexdigest()
        return self.folder / f"{rung:02d}-{images[:24]}.npz"
