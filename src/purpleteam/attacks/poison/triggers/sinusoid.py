"""The sinusoidal trigger, SIG (Barni, Kallas and Tondi 2019, arXiv:1902.11237).

v(i, j) = amplitude sin(2 pi j frequency / m),   1 <= j <= m columns, for every row i
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.attacks.poison.triggers._base import AnyTrigger, to_bytes


@dataclass(frozen=True, kw_only=True)
class Sinusoid(AnyTrigger):
    """Upright stripes added to the whole image."""

    amplitude: float = 40.0
    """Height of the wave in grey values of 0 to 255."""
    frequency: float = 6.0
    """Whole waves over the width of the image."""

    def __post_init__(self) -> None:
        for name in ("amplitude", "frequency"):
            if not 0 < getattr(self, name) <= 255:
                raise ValueError(
                    f"{name} must be above 0 and at most 255, not {getattr(self, name)}"
                )

    def stamp(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return to_bytes(images + self.wave(images.shape[2])[None, None, :, None])

    def wave(self, width: int) -> NDArray[np.float64]:
        """Return what is added to each column, float64 (W,)."""
        columns = np.arange(1, width + 1)
        wave: NDArray[np.float64] = self.amplitude * np.sin(
            2 * np.pi * columns * self.frequency / width
        )
        return wave

    def describe(self, channels: int) -> dict[str, Any]:
        return {"kind": "sinusoid"} | asdict(self)
