"""Noise of the sensor (Hendrycks & Dietterich 2019, arXiv:1903.12261)."""

from __future__ import annotations

import numpy as np

from purpleteam.data.corruptions._base import CORRUPTIONS, Image, graded

__all__ = ["impulse_noise", "shot_noise"]


@CORRUPTIONS.register("shot_noise")
def shot_noise(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Return what a sensor counts that white sends so few photons; black stays black."""
    photons = graded(severity, 60, 25, 12, 5, 3)
    return rng.poisson(image * photons) / photons


@CORRUPTIONS.register("impulse_noise")
def impulse_noise(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Return the image with a share of its pixels black or white (salt and pepper)."""
    share = graded(severity, 0.03, 0.06, 0.09, 0.17, 0.27)
    chance = rng.random(image.shape[:2])[:, :, None]
    white = rng.random(image.shape[:2])[:, :, None] < 0.5
    return np.where(chance < share, white.astype(np.float64), image)
