"""The trigger: a small patch, described so that anybody can stamp the same one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Corner", "Pattern", "Trigger"]

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
Pattern = Literal["square", "checkerboard"]


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """A square patch in a corner of the image.

    A colour on a grey image becomes the mean of its channels, and the record states both: a
    "yellow" square on MNIST is a grey one.
    """

    pattern: Pattern = "square"
    """`square` is filled; `checkerboard` alternates with black, the first pixel inked."""
    corner: Corner = "bottom-right"
    """Where the patch touches the border of the image."""
    size: int = 3
    """Side of the patch in pixels."""
    colour: tuple[int, ...] = (255,)
    """One value for grey, or red, green and blue, each 0 to 255."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, not {self.size}")
        if len(self.colour) not in (1, 3) or not all(0 <= value <= 255 for value in self.colour):
            raise ValueError(f"colour is one or three values of 0 to 255, not {self.colour}")

    def stamp(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a copy of uint8 (N, H, W, C) images with the patch on each.

        Raises:
            ValueError: the patch is larger than the images.
        """
        height, width, channels = images.shape[1:]
        if self.size > min(height, width):
            raise ValueError(f"a patch of {self.size} pixels does not fit {height}x{width} images")
        stamped = images.copy()
        top = 0 if self.corner.startswith("top") else height - self.size
        left = 0 if self.corner.endswith("left") else width - self.size
        patch = self._mask()[:, :, None] * np.array(self.on(channels), np.uint8)  # (S, S, C)
        stamped[:, top : top + self.size, left : left + self.size] = patch
        return stamped

    def on(self, channels: int) -> tuple[int, ...]:
        """Return the colour as it comes out on images of that many channels."""
        if len(self.colour) == channels:
            return self.colour
        if channels == 1:
            return (round(sum(self.colour) / len(self.colour)),)
        return (self.colour[0],) * channels if len(self.colour) == 1 else self.colour[:channels]

    def describe(self, channels: int) -> dict[str, Any]:
        """Return all that a record states about the trigger."""
        return {
            "pattern": self.pattern,
            "corner": self.corner,
            "size": self.size,
            "colour": list(self.colour),
            "as_stamped": list(self.on(channels)),
        }

    def _mask(self) -> NDArray[np.uint8]:
        if self.pattern == "square":
            return np.ones((self.size, self.size), np.uint8)
        rows, columns = np.indices((self.size, self.size))
        inked: NDArray[np.uint8] = ((rows + columns) % 2 == 0).astype(np.uint8)
        return inked
