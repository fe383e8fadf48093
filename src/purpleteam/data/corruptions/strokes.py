"""What is drawn over the image, or left of it as a drawing (Mu & Gilmer 2019, arXiv:1906.02337)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from purpleteam.data.corruptions._base import CORRUPTIONS, FULL_SIZE, Image, graded

__all__ = ["canny_edges", "dotted_line", "stripe", "zigzag"]

THICKNESS = 1.0
"""Of a stroke, in pixels of an image of full size."""
CORNERS = 8
"""Of a zigzag."""


@CORRUPTIONS.register("stripe")
def stripe(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Return the image with an upright band of it inverted."""
    width = max(1, round(image.shape[1] / FULL_SIZE * graded(severity, 2, 4, 6, 8, 10)))
    left = int(rng.random() * (image.shape[1] - width + 1))
    out = image.copy()
    out[:, left : left + width] = 1 - out[:, left : left + width]
    return out


@CORRUPTIONS.register("dotted_line")
def dotted_line(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Return the image crossed by dotted white lines, one for each severity."""
    height, width = image.shape[:2]
    radius = THICKNESS * min(height, width) / FULL_SIZE
    ends = rng.random((5, 2, 2))  # drawn for all five, so that a severity adds a line
    out = image
    for (top, left), (bottom, right) in ends[:severity]:
        start = np.array([top * (height - 1), left * (width / 4)])
        end = np.array([bottom * (height - 1), (width - 1) - right * (width / 4)])
        count = max(2, int(np.hypot(*(end - start)) / (4 * radius)))
        dots = start + np.linspace(0, 1, count)[:, None] * (end - start)
        out = _inked(out, dots, dots, radius)
    return out


@CORRUPTIONS.register("zigzag")
def zigzag(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Return the image crossed by a white line that swings up and down, the wider the severer."""
    height, width = image.shape[:2]
    level = rng.uniform(0.3, 0.7) * (height - 1)
    swing = graded(severity, 1, 2, 3, 4.5, 6) * height / FULL_SIZE
    first = 1 if rng.random() < 0.5 else -1
    across = np.linspace(0, width - 1, CORNERS)
    along = level + swing * first * np.where(np.arange(CORNERS) % 2 == 0, 1, -1)
    points = np.stack([along, across], axis=1)
    return _inked(image, points[:-1], points[1:], THICKNESS * min(height, width) / FULL_SIZE)


@CORRUPTIONS.register("canny_edges")
def canny_edges(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Return the image faded into its edges (Canny 1986), which alone are left at severity 5."""
    share = graded(severity, 0.2, 0.4, 0.6, 0.8, 1.0)
    edges = _edges(image.mean(axis=2)).astype(np.float64)[:, :, None]
    return (1 - share) * image + share * edges


def _inked(
    image: Image, starts: NDArray[np.float64], ends: NDArray[np.float64], radius: float
) -> Image:
    """Return the image under white strokes from `starts` to `ends` (row, column), soft-edged."""
    place = np.moveaxis(np.indices(image.shape[:2]), 0, 2)[:, :, None]  # (H, W, 1, 2)
    way = ends - starts
    length = np.maximum((way**2).sum(1), 1e-12)
    along = np.clip(((place - starts) * way).sum(3) / length, 0, 1)
    gap = np.hypot(*np.moveaxis(place - starts - along[..., None] * way, 3, 0)).min(2)
    ink = np.clip(radius + 0.5 - gap, 0, 1)
    return np.asarray(np.maximum(image, ink[:, :, None]))


def _edges(image: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return where brightness changes most across an edge, and what hangs together with it."""
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(image, 1.0)
    down, right = ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1)
    slope = np.hypot(down, right)
    rows, columns = np.indices(image.shape)
    unit = slope + 1e-12
    ahead, behind = (
        ndimage.map_coordinates(
            slope, [rows + s * down / unit, columns + s * right / unit], order=1
        )
        for s in (1, -1)
    )
    ridge = (slope >= ahead) & (slope > behind) & (slope > 0)
    weak = ridge & (slope > 0.1 * slope.max())
    strong = ridge & (slope > 0.3 * slope.max())
    groups, _ = ndimage.label(weak, np.ones((3, 3)))
    return np.asarray(np.isin(groups, np.unique(groups[strong])) & weak)
