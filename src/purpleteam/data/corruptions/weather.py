"""Light, fog and splashes (Hendrycks & Dietterich 2019, arXiv:1903.12261)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from purpleteam.data.corruptions._base import CORRUPTIONS, FULL_SIZE, Image, graded

__all__ = ["brightness", "fog", "spatter"]

ROUGHNESS = 1.8
"""How fast the waves of fog lose height as they get shorter."""


@CORRUPTIONS.register("brightness")
def brightness(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Return the image with all of it lighter by the same amount."""
    return image + graded(severity, 0.1, 0.2, 0.3, 0.4, 0.5)


@CORRUPTIONS.register("fog")
def fog(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Return the image under a cloud of random waves, its contrast down by the cloud's share."""
    thickness = graded(severity, 0.4, 0.7, 1.0, 1.5, 2.2)
    return (image + thickness * _cloud(image.shape[:2], rng)[:, :, None]) / (1 + thickness)


@CORRUPTIONS.register("spatter")
def spatter(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Return the image behind drops of bright liquid, each dense in its middle."""
    from scipy import ndimage

    sigma = min(image.shape[:2]) / FULL_SIZE
    field = ndimage.gaussian_filter(rng.standard_normal(image.shape[:2]), sigma)
    wet = graded(severity, 0.04, 0.08, 0.12, 0.18, 0.25)  # share of the image
    level = np.quantile(field, 1 - wet)
    depth = np.clip((field - level) / (field.max() - level + 1e-12), 0, 1) ** 0.5
    return np.asarray(np.maximum(image, depth[:, :, None]))


def _cloud(size: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return noise from 0 to 1 whose waves are the higher the longer they are."""
    rows, columns = np.fft.fftfreq(size[0])[:, None], np.fft.fftfreq(size[1])[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf
    waves = np.fft.fft2(rng.standard_normal(size)) / frequency**ROUGHNESS
    cloud = np.real(np.fft.ifft2(waves))
    cloud -= cloud.min()
    return np.asarray(cloud / (cloud.max() + 1e-12))
