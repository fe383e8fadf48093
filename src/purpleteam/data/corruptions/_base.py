"""The registry of corruptions, and how one is applied: seeded per image, back into bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import UsageError
from purpleteam.core.registry import Registry

__all__ = ["CORRUPTIONS", "FULL_SIZE", "SEVERITIES", "Image", "corrupt", "graded"]

Image = NDArray[np.float64]
"""One image, (H, W, C) in [0, 1]."""
Corruption = Callable[[Image, int, np.random.Generator], Image]
"""Takes an image, a severity and where its randomness comes from; may leave [0, 1]."""

CORRUPTIONS: Registry[Corruption] = Registry("corruption")
SEVERITIES = (1, 2, 3, 4, 5)
FULL_SIZE = 28
"""Side of the images for which lengths are given; others get them in proportion."""


def corrupt(
    images: NDArray[np.uint8],
    kind: str,
    severity: int,
    *,
    seed: int = 0,
    index: Sequence[int] | NDArray[np.int64] | None = None,
) -> NDArray[np.uint8]:
    """Return the images (N, H, W, C) corrupted, the originals untouched.

    What is random in it (places, signs, noise) depends on the seed, the kind and each image's
    index alone, and is the same for every severity.

    Args:
        images: uint8 (N, H, W, C).
        kind: a name in `CORRUPTIONS`.
        severity: 1 to 5; at 0 nothing changes.
        seed: of all randomness.
        index: each image's place in its dataset; the default counts from 0.
    """
    change = CORRUPTIONS[kind]
    if severity not in (0, *SEVERITIES):
        raise UsageError(f"a severity is 0 (unchanged) to {SEVERITIES[-1]}, not {severity}")
    if severity == 0:
        return images.copy()
    places = range(len(images)) if index is None else index
    out = np.empty_like(images)
    for row, place in enumerate(places):
        key = hashlib.sha256(f"{seed}/{kind}/{int(place)}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(key[:8], "big"))
        changed = change(images[row] / 255.0, severity, rng)
        out[row] = np.rint(np.clip(changed, 0, 1) * 255).astype(np.uint8)
    return out


def graded(severity: int, *values: float) -> float:
    """Return the value of that severity."""
    return values[severity - 1]
