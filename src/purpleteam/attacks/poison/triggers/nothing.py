"""No trigger: for poisons that change labels, or aim at one image as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.attacks.poison.triggers._base import AnyTrigger


@dataclass(frozen=True, kw_only=True)
class Nothing(AnyTrigger):
    """Leaves every image as it is."""

    def stamp(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return images.copy()

    def describe(self, channels: int) -> dict[str, Any]:
        return {"pattern": "none"}

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        return np.zeros((height, width), np.bool_)
