"""From a drawing of any size to the 28x28 image a digit classifier reads, as MNIST was made.

Training data, the command line and the app share `place`, and `drawing.js` repeats it in the
browser. Each step is arithmetic on whole numbers below 2**53, which a float64 holds exactly, and no
quotient comes within rounding error of a whole number without being it: any order of summation
and any language gives the same 784 bytes.

1. Box: the smallest rectangle around the ink, pixels from grey level 64; the faint ones in it stay.
2. Size: its longest side becomes 20, the other is in proportion; a half is rounded upwards.
3. Area filter: a cell collects the grey levels that it covers, counted in whole parts of a pixel; a
   smaller box is enlarged likewise.
4. Contrast: the brightest cell becomes 255, as in MNIST, whatever the pen; halves go upwards.
5. Centre of mass: it comes to lie in [13.5, 14.5) on both axes, where MNIST has it, unless a
   lopsided drawing would be cut.

A drawing that is known as lines of points is brought to one size, and to a pen that a model can
read, before it is painted: `fitted`, whose twin is in `drawing.js` too.

`redraw` does the reverse to a small digit, to test `place`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import DataError, UsageError

Number = TypeVar("Number", np.int64, np.float64)
Point = tuple[float, float]  # (x, y) in pixels of the canvas, y downwards
Line = Sequence[Point]

FIELD = 28  # side of the image that a classifier reads
BOX = 20  # longest side of the placed ink
INK = 64  # grey level from which a pixel is ink; up to here nearly all of MNIST is 20 pixels long
LARGEST_SIDE = 4096  # of a drawing; keeps every sum far below 2**53
CANVAS = 280  # side of the square that is drawn on
FRAME = 200.0  # longest side of the pen's path once it is fitted, in pixels of the canvas
SHORTEST = 16.0  # path that is enlarged so far; a shorter one stays the blot that it is
UPRIGHT = -0.13  # slant of half of MNIST's digits, in x per y; they lean to the right
MOST_SLANT = 1.0  # more of it is not handwriting: a dash hardly has a height
PENS = (20.0, 28.0)  # narrowest and widest pen of a fitted drawing: 1.8 and 2.5 cells of its BOX


class EmptyDrawing(DataError):
    """A drawing without ink, in which there is nothing to read."""


def place(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the drawing as MNIST would have it: 20x20 box, centre of mass in the middle.

    Raises:
        EmptyDrawing: no pixel is as bright as `INK`.
    """
    if image.dtype != np.uint8 or image.ndim != 2 or max(image.shape) > LARGEST_SIDE:
        wanted = f"uint8 (height, width), at most {LARGEST_SIDE} a side"
        raise DataError(f"a drawing must be {wanted}, not {image.dtype} {image.shape}")
    if not (image >= INK).any():
        raise EmptyDrawing(f"the drawing is empty: no pixel is {INK} or brighter")
    (top, height), (left, width) = (_extent(image >= INK, across=axis) for axis in (1, 0))
    box = image[top : top + height, left : left + width].astype(np.int64)
    longest = max(box.shape)
    rows, columns = (max(1, (2 * BOX * side + longest) // (2 * longest)) for side in box.shape)
    sums = _share(_share(box, rows).T, columns).T  # (rows, columns)
    peak = sums.max()
    cells = (510 * sums + peak) // (2 * peak)
    top, left = _offset(cells.sum(axis=1)), _offset(cells.sum(axis=0))
    placed = np.zeros((FIELD, FIELD), np.uint8)
    placed[top : top + rows, left : left + columns] = cells
    return placed


def _share(image: NDArray[np.int64], cells: int) -> NDArray[np.int64]:
    """Return what each of `cells` rows collects of the image's rows, in units of 1/cells."""
    padded = _framed(image)
    row, part = np.divmod(np.arange(cells + 1) * len(image), cells)
    above = padded.cumsum(axis=0)[row] * cells + padded[row + 1] * part[:, None]
    shares: NDArray[np.int64] = np.diff(above, axis=0)
    return shares


def _offset(profile: NDArray[np.int64]) -> int:
    """Return where the first of the cells goes, for their mass along one axis."""
    mass, moment = int(profile.sum()), int(profile @ np.arange(len(profile)))
    start = -((2 * moment - (FIELD - 1) * mass) // (2 * mass))
    return min(max(start, 0), FIELD - len(profile))


def strokes(
    lines: Sequence[Line], *, width: float | Sequence[float] = 20.0, size: int = CANVAS
) -> NDArray[np.uint8]:
    """Draw lines of (x, y) points with a round, anti-aliased brush on a square canvas.

    A line of one point is a dab. Overlapping strokes do not add up: the brightest counts.
    `width` is that of the brush, or of the brush of each line.
    """
    canvas = np.zeros((size, size))
    centres, widths = np.arange(size) + 0.5, _of_each(lines, width)
    for line, across_it in zip(lines, widths, strict=True):
        reach = across_it / 2 + 0.5
        for (x, y), (end_x, end_y) in zip([*line[:1], *line], line, strict=False):
            down, across = _span(y, end_y, reach, size), _span(x, end_x, reach, size)
            step_x, step_y = end_x - x, end_y - y
            dx, dy = centres[None, across] - x, centres[down, None] - y
            squared = step_x * step_x + step_y * step_y
            along = (dx * step_x + dy * step_y) / squared if squared else 0.0
            share = np.minimum(np.maximum(along, 0.0), 1.0)
            gap_x, gap_y = dx - share * step_x, dy - share * step_y
            gap = np.sqrt(gap_x * gap_x + gap_y * gap_y)  # hypot may differ in its last bit
            part = canvas[down, across]
            np.maximum(part, np.minimum(reach - gap, 1.0), out=part)
    return np.floor(canvas * 255 + 0.5).astype(np.uint8)


def fitted(
    lines: Sequence[Line], *, width: float | Sequence[float] = 20.0
) -> tuple[list[list[Point]], list[float]]:
    """Return the lines, and the width of each, as a model is shown them.

    Half of what the pen's path slants more or less than digits of MNIST do is taken away. Then it
    comes to the middle of the canvas, its longest side to `FRAME`, and the pens, which grow with
    it, are kept within `PENS`: a small digit by a wide pen would be a blot, though its path says
    which digit it is. A path shorter than `SHORTEST` grows less and stays a blot.
    """
    widths = _of_each(lines, width)
    if not any(lines):
        return [[] for _ in lines], widths
    shear = (min(max(_slant(lines), -MOST_SLANT), MOST_SLANT) - UPRIGHT) / 2
    upright = [[(x - shear * y, y) for x, y in line] for line in lines]
    points = [point for line in upright for point in line]
    (left, right), (top, bottom) = ((min(one), max(one)) for one in zip(*points, strict=True))
    scale = FRAME / max(right - left, bottom - top, SHORTEST)
    shift_x, shift_y = (CANVAS / 2 - (a + b) / 2 * scale for a, b in ((left, right), (top, bottom)))
    moved = [[(x * scale + shift_x, y * scale + shift_y) for x, y in line] for line in upright]
    return moved, [min(max(one * scale, PENS[0]), PENS[1]) for one in widths]


def _slant(lines: Sequence[Line]) -> float:
    """Return how far the path goes to the right for each pixel downwards, by its second moments."""
    length = at_x = at_y = across = down = 0.0
    for line in lines:
        for (x, y), (end_x, end_y) in pairwise(line):
            step_x, step_y = end_x - x, end_y - y
            middle_x, middle_y = (x + end_x) / 2, (y + end_y) / 2
            far = math.sqrt(step_x * step_x + step_y * step_y)
            length, at_x, at_y = length + far, at_x + far * middle_x, at_y + far * middle_y
            across += far * (middle_x * middle_y + step_x * step_y / 12)
            down += far * (middle_y * middle_y + step_y * step_y / 12)
    spread = down * length - at_y * at_y
    return (across * length - at_x * at_y) / spread if spread > 0 else 0.0


def _of_each(lines: Sequence[Line], width: float | Sequence[float]) -> list[float]:
    return [width] * len(lines) if isinstance(width, int | float) else list(width)


def _span(start: float, end: float, reach: float, size: int) -> slice:
    low, high = math.floor(min(start, end) - reach), math.ceil(max(start, end) + reach)
    return slice(max(low, 0), min(max(high, 0), size - 1) + 1)


@dataclass(frozen=True, kw_only=True)
class RedrawCase:
    """How digits are redrawn: the ink's longest side, and how far off the centre it may lie."""

    name: str
    size: int  # longest side of the ink on the canvas, in pixels
    offset: int = 0  # greatest shift along each axis, in pixels

    def offsets(self, count: int, *, seed: int) -> NDArray[np.int64]:
        """Return a shift (x, y) for each of `count` digits, uniform over the allowed square."""
        shifts = np.random.default_rng(seed).integers(-self.offset, self.offset + 1, (count, 2))
        return shifts.astype(np.int64)


CASES = (  # that are measured, on a canvas of 280 pixels
    RedrawCase(name="large, centred", size=200),
    RedrawCase(name="large, off centre", size=200, offset=40),
    RedrawCase(name="medium, centred", size=120),
    RedrawCase(name="small, anywhere", size=80, offset=100),
)


def redraw(
    digit: NDArray[np.uint8], *, size: int, offset_x: int = 0, offset_y: int = 0, canvas: int = 280
) -> NDArray[np.uint8]:
    """Return a canvas with the digit's box enlarged to `size` pixels, its centre shifted."""
    if digit.ndim != 2 or size < 1 or canvas < 1:
        raise UsageError(f"cannot redraw {digit.shape} at {size} pixels on a canvas of {canvas}")
    if not digit.any():
        raise EmptyDrawing("the digit to redraw is empty: every pixel is 0")
    (top, height), (left, width) = (_extent(digit, across=axis) for axis in (1, 0))
    scale = size / max(height, width)
    place = np.arange(canvas, dtype=np.float64) + (0.5 - canvas / 2)
    down = (place - offset_y) / scale + top + height / 2
    across = (place - offset_x) / scale + left + width / 2
    grey = _bilinear(_bilinear(digit.astype(np.float64), down).T, across).T  # (canvas, canvas)
    return np.floor(grey + 0.5).astype(np.uint8)


def _framed(image: NDArray[Number]) -> NDArray[Number]:
    """Return the image between two rows of 0, as `np.pad` would, and sooner."""
    framed = np.zeros((len(image) + 2, image.shape[1]), image.dtype)
    framed[1:-1] = image
    return framed


def _extent(ink: NDArray[Any], *, across: int) -> tuple[int, int]:
    at = np.flatnonzero(ink.any(axis=across))
    return int(at[0]), int(at[-1] - at[0] + 1)


def _bilinear(image: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the image's rows at the positions `at`, between 0 (the top edge) and its height."""
    padded = _framed(image)
    within = np.clip(at + 0.5, 0.0, len(image) + 1.0)
    row = np.minimum(within.astype(np.int64), len(image))
    share = (within - row)[:, None]
    rows: NDArray[np.float64] = padded[row] * (1.0 - share) + padded[row + 1] * share
    return rows
