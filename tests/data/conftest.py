"""A small set of the right form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from purpleteam.data.idx import IDX_FILES, write_idx


@pytest.fixture
def four_files(tmp_path: Path) -> Path:
    """The four files of a set of 24 + 6 images, 6x6, its three classes taking turns."""
    folder = tmp_path / "four"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for count, (images, labels) in ((24, IDX_FILES[:2]), (6, IDX_FILES[2:])):
        write_idx(folder / f"{images}.gz", rng.integers(0, 256, (count, 6, 6)).astype(np.uint8))
        write_idx(folder / f"{labels}.gz", (np.arange(count) % 3).astype(np.uint8))
    return folder
