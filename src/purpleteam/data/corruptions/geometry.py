"""The image turned, sheared, shrunk or shifted, on black (Mu & Gilmer 2019, arXiv:1906.02337)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from purpleteam.data.corruptions._base import CORRUPTIONS, FULL_SIZE, Image, graded

__all__ = ["rotate", "scale", "shear", "translate"]


@CORRUPTIONS.register("rotate")
def rotate(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Return the image turned about its centre, either way."""
    angle = _either(rng) * np.radians(graded(severity, 10, 20, 30, 40, 50))
    cosine, sine = np.cos(angle), np.sin(angle)
    return _read_from(image, np.array([[cosine, -sine], [sine, cosine]]))


@CORRUPTIONS.register("scale")
def scale(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Return the image shrunk towards its centre."""
    return _read_from(image, np.eye(2) / graded(severity, 0.9, 0.8, 0.7, 0.6, 0.5))


@CORRUPTIONS.register("shear")
def shear(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Return the image with its rows slid sideways, the further from the centre the more."""
    slant = _either(rng) * graded(severity, 0.2, 0.4, 0.6, 0.8, 1.0)
    return _read_from(image, np.array([[1, 0], [slant, 1]]))


@CORRUPTIONS.register("translate")
def translate(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Return the image shifted in any direction."""
    way = graded(severity, 2, 3, 4, 5, 6) * min(image.shape[:2]) / FULL_SIZE
    angle = rng.uniform(0, 2 * np.pi)
    shift = way * np.array([np.sin(angle), np.cos(angle)])
    return _read_from(image, np.eye(2), shift)


def _either(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def _read_from(
    image: Image, matrix: NDArray[np.float64], shift: NDArray[np.float64] | None = None
) -> Image:
    """Return at each place p, seen from the centre, what stands at `matrix` p - `shift`."""
    from scipy import ndimage

    centre = (np.array(image.shape[:2]) - 1) / 2
    offset = centre - matrix @ centre - (0 if shift is None else shift)
    layers = [
        ndimage.affine_transform(image[:, :, channel], matrix, offset, order=1)
        for channel in range(image.shape[2])
    ]
    return np.stack(layers, axis=2)
