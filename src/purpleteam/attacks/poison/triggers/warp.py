"""The warping trigger of WaNet (Nguyen and Tran 2021, arXiv:2102.10369).

A grid of k x k random arrows, scaled to a mean size, is enlarged smoothly to the image; every pixel
is then read from where its arrow points, between the pixels by bilinear weights. In noise mode
each pixel's arrow is jittered at random, so that a net must learn this warp and not warping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.attacks.poison.triggers._base import AnyTrigger, to_bytes

CHUNK = 2048
"""Images warped at once, to bound the memory."""


@dataclass(frozen=True, kw_only=True)
class Warp(AnyTrigger):
    """Bends every image in the same smooth way."""

    strength: float = 2.0
    """Mean length of the arrows along each axis, in pixels, before they are enlarged. The paper's
    0.5 in its own unit is about a quarter of a pixel, which without control of the training is
    learnt from far more poisons."""
    grid: int = 4
    """Arrows along each side (k)."""
    pattern_seed: int = 0
    """Which warp it is."""

    def __post_init__(self) -> None:
        if not 0 <= self.strength < float("inf"):
            raise ValueError(f"strength must be at least 0 pixels, not {self.strength}")
        if self.grid < 2:
            raise ValueError(f"grid must be at least 2, not {self.grid}")
        if self.pattern_seed < 0:
            raise ValueError(f"pattern_seed must be at least 0, not {self.pattern_seed}")

    def stamp(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return warped(images, self.field(*images.shape[1:3])[None])

    def jittered(
        self, images: NDArray[np.uint8], rngs: Sequence[np.random.Generator]
    ) -> NDArray[np.uint8]:
        """Return the images under the warp with noise as large as itself: WaNet's noise mode."""
        field = self.field(*images.shape[1:3])
        size = 2 * self.strength  # uniform in +-size has the mean size `strength`
        noise = np.stack([rng.uniform(-size, size, field.shape) for rng in rngs])
        return warped(images, field[None] + noise)

    def field(self, height: int, width: int) -> NDArray[np.float64]:
        """Return how far down and right each pixel is read from, in pixels, (H, W, 2)."""
        from scipy.ndimage import map_coordinates

        rng = np.random.default_rng(self.pattern_seed)
        arrows = rng.uniform(-1, 1, (self.grid, self.grid, 2))
        arrows *= self.strength / np.abs(arrows).mean()
        rows, columns = (np.linspace(0, self.grid - 1, side) for side in (height, width))
        at = np.meshgrid(rows, columns, indexing="ij")
        axes = [map_coordinates(arrows[:, :, axis], at, order=3, mode="nearest") for axis in (0, 1)]
        return np.stack(axes, axis=2).astype(np.float64)

    def describe(self, channels: int) -> dict[str, Any]:
        return {"kind": "warp"} | asdict(self)


def warped(images: NDArray[np.uint8], field: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return uint8 (N, H, W, C) images read at places moved by `field`, (N or 1, H, W, 2) pixels.

    What points outside is read at the border.
    """
    out = np.empty_like(images)
    for start in range(0, len(images), CHUNK):
        part = slice(start, start + CHUNK)
        out[part] = _bilinear(images[part], field if len(field) == 1 else field[part])
    return out


def _bilinear(images: NDArray[np.uint8], field: NDArray[np.float64]) -> NDArray[np.uint8]:
    height, width = images.shape[1:3]
    rows = np.clip(np.arange(height)[None, :, None] + field[..., 0], 0, height - 1)
    columns = np.clip(np.arange(width)[None, None, :] + field[..., 1], 0, width - 1)
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    bottom, beside = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    which = np.arange(len(images))[:, None, None]
    upper = (1 - right) * images[which, top, left] + right * images[which, top, beside]
    lower = (1 - right) * images[which, bottom, left] + right * images[which, bottom, beside]
    return to_bytes((1 - down) * upper + down * lower)
