"""Blur of glass and of motion (Hendrycks & Dietterich 2019, arXiv:1903.12261)."""

from __future__ import annotations

import numpy as np

from purpleteam.data.corruptions._base import CORRUPTIONS, FULL_SIZE, Image, graded

__all__ = ["glass_blur", "motion_blur"]


@CORRUPTIONS.register("glass_blur")
def glass_blur(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Return the image seen through frosted glass: pixels trade places nearby, then blur."""
    from scipy import ndimage

    length = min(image.shape[:2]) / FULL_SIZE
    reach = length * graded(severity, 0.7, 1.0, 1.4, 2.0, 2.6)
    rows, columns = np.rint(rng.uniform(-1, 1, (2, *image.shape[:2])) * reach).astype(np.int64)
    rows = np.clip(rows + np.arange(image.shape[0])[:, None], 0, image.shape[0] - 1)
    columns = np.clip(columns + np.arange(image.shape[1]), 0, image.shape[1] - 1)
    sigma = length * graded(severity, 0.6, 0.7, 0.8, 0.9, 1.0)
    blurred: Image = ndimage.gaussian_filter(image[rows, columns], (sigma, sigma, 0))
    return blurred


@CORRUPTIONS.register("motion_blur")
def motion_blur(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Return the mean of the image along a straight movement, at up to 45 degrees."""
    from scipy import ndimage

    length = min(image.shape[:2]) / FULL_SIZE * graded(severity, 3, 5, 7, 9, 11)
    angle = rng.uniform(-np.pi / 4, np.pi / 4)
    count = max(2, round(2 * length))
    total = np.zeros_like(image)
    for way in np.linspace(-length / 2, length / 2, count):
        shift = (way * np.sin(angle), way * np.cos(angle), 0)
        total += ndimage.shift(image, shift, order=1, mode="nearest")
    return np.asarray(total / count)
