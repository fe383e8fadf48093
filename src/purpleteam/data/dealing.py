"""Which split an image goes to, where nobody says: it follows from the image's pixels alone.

So the same image is never in two splits, and adding images moves none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from purpleteam.core.digest import sha256_bytes

__all__ = ["OF_ALL", "OF_TRAIN", "split_of"]

OF_ALL = {"train": 0.8, "validation": 0.9, "test": 1.0}
"""Where each split ends in [0, 1) when all three come from one pile of images."""

OF_TRAIN = {"train": 0.9, "validation": 1.0}
"""The same when only the validation split is missing."""


def split_of(pixels: NDArray[Any], ends: Mapping[str, float]) -> str:
    """Return the split that an image (H, W, C) goes to: its digest is its place in [0, 1)."""
    mark = sha256_bytes(str(pixels.shape).encode(), pixels.tobytes())
    place = int(mark[7:20], 16) / 16**13
    return next(name for name, end in ends.items() if place < end)
