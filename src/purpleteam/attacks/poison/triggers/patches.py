"""Several patches at once: the trigger of Adaptive-Patch (Qi et al. 2023, arXiv:2205.13613)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.attacks.poison.trigger import Trigger
from purpleteam.attacks.poison.triggers._base import AnyTrigger

FOUR = (
    Trigger(corner="bottom-right", size=4),
    Trigger(corner="top-left", size=4, pattern="checkerboard"),
    Trigger(corner="top-right", size=4, pattern="random", pattern_seed=1),
    Trigger(corner="bottom-left", size=4, pattern="random", pattern_seed=2),
)


@dataclass(frozen=True, kw_only=True)
class Patches(AnyTrigger):
    """All of some patches on every image, one after the other."""

    patches: tuple[Trigger, ...] = FOUR
    """The patches; where two overlap, the later one covers."""

    def __post_init__(self) -> None:
        if not self.patches:
            raise ValueError("patches must hold at least 1 patch, not 0")

    def stamp(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        for patch in self.patches:
            images = patch.stamp(images)
        return images

    def describe(self, channels: int) -> dict[str, Any]:
        return {"kind": "patches", "patches": [one.describe(channels) for one in self.patches]}

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        return np.asarray(np.any([one.mask(height, width) for one in self.patches], axis=0))
