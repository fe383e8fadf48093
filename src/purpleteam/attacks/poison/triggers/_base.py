"""What every trigger is: a frozen description, and a function of images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray


class AnyTrigger(ABC):
    """What opens a backdoor; a subclass is a frozen dataclass whose fields say all of it."""

    @abstractmethod
    def stamp(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a copy of uint8 (N, H, W, C) images with the trigger on each.

        Raises:
            ValueError: it does not fit images of that shape.
        """

    @abstractmethod
    def describe(self, channels: int) -> dict[str, Any]:
        """Return all that a record states about the trigger, on images of that many channels."""

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        """Return the pixels that the trigger may change, bool (H, W); by default all."""
        return np.ones((height, width), np.bool_)


def to_bytes(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Return grey values rounded to the nearest of 0 to 255."""
    rounded: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded
