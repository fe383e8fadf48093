"""Draw a small digit large on a canvas, as a person would: the test of `drawing.place`.

A classifier that reads MNIST may still fail on drawings that are small or off the centre, so
an evaluation redraws test digits in these cases, places them and reads them again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import UsageError
from purpleteam.data.drawing import EmptyDrawing

__all__ = ["CASES", "RedrawCase", "redraw"]


@dataclass(frozen=True, kw_only=True)
class RedrawCase:
    """How digits are redrawn: the ink's longest side, and how far off the centre it may lie."""

    name: str
    size: int
    """Longest side of the ink on the canvas, in pixels."""
    offset: int = 0
    """Greatest shift along each axis, in pixels."""

    def offsets(self, count: int, *, seed: int) -> NDArray[np.int64]:
        """Return a shift (x, y) for each of `count` digits, uniform over the allowed square."""
        shifts = np.random.default_rng(seed).integers(-self.offset, self.offset + 1, (count, 2))
        return shifts.astype(np.int64)


CASES = (
    RedrawCase(name="large, centred", size=200),
    RedrawCase(name="large, off centre", size=200, offset=40),
    RedrawCase(name="medium, centred", size=120),
    RedrawCase(name="small, anywhere", size=80, offset=100),
)
"""The cases that are measured, on a canvas of 280 pixels."""


def redraw(
    digit: NDArray[np.uint8],
    *,
    size: int,
    offset_x: int = 0,
    offset_y: int = 0,
    canvas: int = 280,
) -> NDArray[np.uint8]:
    """Return a canvas with the digit's box enlarged to `size` pixels, its centre shifted.

    Grey levels are interpolated bilinearly, so edges are smooth and fade beyond the box by half
    a pixel of the digit. What lies outside the canvas is lost, as on a real one.

    Raises:
        EmptyDrawing: the digit has no pixel above 0.
    """
    if digit.ndim != 2 or size < 1 or canvas < 1:
        raise UsageError(f"cannot redraw {digit.shape} at {size} pixels on a canvas of {canvas}")
    if not digit.any():
        raise EmptyDrawing("the digit to redraw is empty: every pixel is 0")
    top, height = _extent(digit, across=1)
    left, width = _extent(digit, across=0)
    scale = size / max(height, width)
    place = np.arange(canvas, dtype=np.float64) + (0.5 - canvas / 2)
    down = (place - offset_y) / scale + top + height / 2
    across = (place - offset_x) / scale + left + width / 2
    grey = _bilinear(_bilinear(digit.astype(np.float64), down).T, across).T  # (canvas, canvas)
    return np.floor(grey + 0.5).astype(np.uint8)


def _extent(digit: NDArray[np.uint8], *, across: int) -> tuple[int, int]:
    """Return where the ink begins and how long it is, looking across one axis."""
    at = np.flatnonzero(digit.any(axis=across))
    return int(at[0]), int(at[-1] - at[0] + 1)


def _bilinear(image: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the image's rows at the positions `at`, between 0 (the top edge) and its height."""
    padded = np.pad(image, ((1, 1), (0, 0)))
    within = np.clip(at + 0.5, 0.0, len(image) + 1.0)
    row = np.minimum(within.astype(np.int64), len(image))
    share = (within - row)[:, None]
    rows: NDArray[np.float64] = padded[row] * (1.0 - share) + padded[row + 1] * share
    return rows
