"""Small sets of the right form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from purpleteam.data.idx import IDX_FILES, write_idx


def write_four(folder: Path, *, train: int = 24, test: int = 6, classes: int = 3) -> Path:
    """Write the four files of a tiny 6x6 set, its classes taking turns."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for count, (images, labels) in ((train, IDX_FILES[:2]), (test, IDX_FILES[2:])):
        write_idx(folder / f"{images}.gz", rng.integers(0, 256, (count, 6, 6)).astype(np.uint8))
        write_idx(folder / f"{labels}.gz", (np.arange(count) % classes).astype(np.uint8))
    return folder


@pytest.fixture
def four_files(tmp_path: Path) -> Path:
    return write_four(tmp_path / "four")
