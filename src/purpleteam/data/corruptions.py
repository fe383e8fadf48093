"""Common corruptions: what happens to images without an adversary, at severities 1 to 5.

The fifteen kinds are those of MNIST-C (Mu & Gilmer 2019, arXiv:1906.02337), which took some from
ImageNet-C (Hendrycks & Dietterich 2019, arXiv:1903.12261). They are written from the papers, for
images of any size, grey or in colour; the papers leave the strengths open, so these are our own,
and figures do not compare with published ones digit by digit. What is random in a corruption is
seeded for each image; the result is rounded back to bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import UsageError
from purpleteam.core.registry import Registry

Image = NDArray[np.float64]
"""One image, (H, W, C) in [0, 1]."""
Corruption = Callable[[Image, int, np.random.Generator], Image]
"""Takes an image, a severity and where its randomness comes from; may leave [0, 1]."""

CORRUPTIONS: Registry[Corruption] = Registry("corruption")
SEVERITIES = (1, 2, 3, 4, 5)
FULL_SIZE = 28
"""Side of the images for which lengths are given; others get them in proportion."""


def corrupt(
    images: NDArray[np.uint8],
    kind: str,
    severity: int,
    *,
    seed: int = 0,
    index: Sequence[int] | NDArray[np.int64] | None = None,
) -> NDArray[np.uint8]:
    """Return the images (N, H, W, C) corrupted, the originals untouched.

    What is random in it (places, signs, noise) depends on the seed, the kind and each image's
    index alone, and is the same for every severity.

    Args:
        images: uint8 (N, H, W, C).
        kind: a name in `CORRUPTIONS`.
        severity: 1 to 5; at 0 nothing changes.
        seed: of all randomness.
        index: each image's place in its dataset; the default counts from 0.
    """
    change = CORRUPTIONS[kind]
    if severity not in (0, *SEVERITIES):
        raise UsageError(f"a severity is 0 (unchanged) to {SEVERITIES[-1]}, not {severity}")
    if severity == 0:
        return images.copy()
    places = range(len(images)) if index is None else index
    out = np.empty_like(images)
    for row, place in enumerate(places):
        key = hashlib.sha256(f"{seed}/{kind}/{int(place)}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(key[:8], "big"))
        changed = change(images[row] / 255.0, severity, rng)
        out[row] = np.rint(np.clip(changed, 0, 1) * 255).astype(np.uint8)
    return out


def graded(severity: int, *values: float) -> float:
    """Return the value of that severity."""
    return values[severity - 1]


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
