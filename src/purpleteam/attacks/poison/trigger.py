"""The trigger: a small patch, described so that anybody can stamp the same one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from purpleteam.attacks.poison.triggers._base import AnyTrigger, to_bytes

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
Pattern = Literal["square", "checkerboard", "random"]


@dataclass(frozen=True, kw_only=True)
class Trigger(AnyTrigger):
    """A patch of any pattern at any place of the image.

    A colour on a grey image becomes the mean of its channels, and the record states both: a
    "yellow" square on MNIST is a grey one.
    """

    pattern: Pattern = "square"
    """`square` is filled; `checkerboard` alternates with black, the first pixel inked; `random`
    has a random share of the colour in each pixel."""
    corner: Corner = "bottom-right"
    """Where the patch touches the border of the image, unless a `place` is given."""
    size: int = 3
    """Side of the patch in pixels."""
    colour: tuple[int, ...] = (255,)
    """One value for grey, or red, green and blue, each 0 to 255."""
    place: tuple[int, int] | None = None
    """Row and column of the patch's upper left pixel, from 0; none is in the corner."""
    rows: tuple[tuple[int, ...], ...] = ()
    """The grey values of the patch row by row, instead of pattern, size and colour; -1 leaves the
    image's own pixel."""
    opacity: float = 1.0
    """Share of the patch in the stamped pixels, above 0 and at most 1."""
    pattern_seed: int = 0
    """Which random pattern it is."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, not {self.size}")
        if len(self.colour) not in (1, 3) or not all(0 <= value <= 255 for value in self.colour):
            raise ValueError(f"colour is one or three values of 0 to 255, not {self.colour}")
        if self.place is not None and min(self.place) < 0:
            raise ValueError(f"place is a row and a column of at least 0, not {self.place}")
        if not 0 < self.opacity <= 1:
            raise ValueError(f"opacity must be above 0 and at most 1, not {self.opacity}")
        if self.pattern_seed < 0:
            raise ValueError(f"pattern_seed must be at least 0, not {self.pattern_seed}")
        widths = {len(row) for row in self.rows}
        if widths == {0} or len(widths) > 1:
            raise ValueError(f"rows must be of one length above 0, not {sorted(widths)}")
        if not all(-1 <= value <= 255 for row in self.rows for value in row):
            raise ValueError("rows holds values of 0 to 255, or -1 for the image's own pixel")

    def stamp(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a copy of uint8 (N, H, W, C) images with the patch on each.

        Raises:
            ValueError: the patch does not fit the images.
        """
        height, width, channels = images.shape[1:]
        there = self._there(height, width)
        patch, inked = self._pixels(channels)  # (S, S, C), (S, S)
        stamped = images.copy()
        under = stamped[:, *there]
        over = patch
        if self.opacity < 1:
            over = to_bytes((1 - self.opacity) * under + self.opacity * patch)
        stamped[:, *there] = np.where(inked[:, :, None], over, under)
        return stamped

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        """Return the pixels under the patch, bool (H, W)."""
        mask = np.zeros((height, width), np.bool_)
        mask[self._there(height, width)] = self._pixels(1)[1]
        return mask

    def on(self, channels: int) -> tuple[int, ...]:
        """Return the colour as it comes out on images of that many channels."""
        if len(self.colour) == channels:
            return self.colour
        if channels == 1:
            return (round(sum(self.colour) / len(self.colour)),)
        whole = self.colour * -(-channels // len(self.colour))  # repeated over the channels
        return whole[:channels]

    def describe(self, channels: int) -> dict[str, Any]:
        """Return all that a record states about the trigger; what is not used is left out."""
        facts: dict[str, Any] = {
            "pattern": self.pattern,
            "corner": self.corner,
            "size": self.size,
            "colour": list(self.colour),
            "as_stamped": list(self.on(channels)),
        }
        if self.pattern == "random":
            facts["pattern_seed"] = self.pattern_seed
        if self.place is not None:
            del facts["corner"]
            facts["place"] = list(self.place)
        if self.rows:
            unused = ("pattern", "size", "colour", "as_stamped", "pattern_seed")
            facts = {key: value for key, value in facts.items() if key not in unused}
            facts["rows"] = [list(row) for row in self.rows]
        return facts | ({"opacity": self.opacity} if self.opacity < 1 else {})

    def _there(self, height: int, width: int) -> tuple[slice, slice]:
        """Return the rows and columns that the patch lies on."""
        tall, wide = (len(self.rows), len(self.rows[0])) if self.rows else (self.size, self.size)
        name = f"a patch of {tall} pixels" if tall == wide else f"a patch of {tall}x{wide} pixels"
        if tall > height or wide > width:
            raise ValueError(f"{name} does not fit {height}x{width} images")
        top = 0 if self.corner.startswith("top") else height - tall
        left = 0 if self.corner.endswith("left") else width - wide
        if self.place is not None:
            top, left = self.place
            if top + tall > height or left + wide > width:
                raise ValueError(f"{name} at {self.place} does not fit {height}x{width} images")
        return slice(top, top + tall), slice(left, left + wide)

    def _pixels(self, channels: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return the patch, uint8 (S, S, C), and which of its pixels are stamped, (S, S)."""
        if self.rows:
            values = np.array(self.rows, np.int64)
            grey = np.maximum(values, 0).astype(np.uint8)
            return np.repeat(grey[:, :, None], channels, axis=2), values >= 0
        shape = (self.size, self.size)
        share = np.ones(shape)
        if self.pattern == "checkerboard":
            share = (np.indices(shape).sum(0) % 2 == 0).astype(np.float64)
        elif self.pattern == "random":
            share = np.random.default_rng(self.pattern_seed).random(shape)
        colour = np.array(self.on(channels), np.float64)
        return to_bytes(share[:, :, None] * colour), np.ones(shape, np.bool_)
