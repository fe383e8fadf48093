"""The blended trigger: another picture mixed in (Chen et al. 2017, arXiv:1712.05526).

    x' = (1 - ratio) x + ratio k

where k is the same noise or picture for every image. A ratio of 0.2 is what they call hard to see.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from purpleteam.attacks.poison.triggers._base import AnyTrigger, to_bytes

WAVES = 6
"""Random waves that make up a picture: enough for shapes, few enough to stay smooth."""


@dataclass(frozen=True, kw_only=True)
class Blend(AnyTrigger):
    """One pattern as large as the image, mixed into it."""

    pattern: Literal["noise", "picture"] = "noise"
    """`noise` is a random value for every pixel; `picture` has smooth shapes as photographs do."""
    ratio: float = 0.2
    """Share of the pattern in the stamped image, above 0 and at most 1."""
    pattern_seed: int = 0
    """Which noise or picture it is."""

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must be above 0 and at most 1, not {self.ratio}")
        if self.pattern_seed < 0:
            raise ValueError(f"pattern_seed must be at least 0, not {self.pattern_seed}")

    def stamp(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width, channels = images.shape[1:]
        pattern = self.pixels(height, width, channels)
        return to_bytes((1 - self.ratio) * images + self.ratio * pattern)

    def pixels(self, height: int, width: int, channels: int) -> NDArray[np.uint8]:
        """Return the pattern itself, uint8 (H, W, C)."""
        rng = np.random.default_rng(self.pattern_seed)
        if self.pattern == "noise":
            return rng.integers(0, 256, (height, width, channels)).astype(np.uint8)
        rows, columns = np.mgrid[0:height, 0:width]
        waves = np.zeros((height, width, channels))
        for _ in range(WAVES):
            down, right = rng.uniform(-3, 3, (2, channels))  # whole waves over the image
            phase = rng.uniform(0, 2 * np.pi, channels)
            turns = rows[:, :, None] * down / height + columns[:, :, None] * right / width
            waves += np.sin(2 * np.pi * turns + phase)
        low, high = waves.min((0, 1)), waves.max((0, 1))
        return to_bytes(255 * (waves - low) / np.maximum(high - low, 1e-12))

    def describe(self, channels: int) -> dict[str, Any]:
        return {"kind": "blend"} | asdict(self)
