"""The fifteen corruptions of MNIST-C (arXiv:1906.02337), some from ImageNet-C (arXiv:1903.12261).

For images of any size, grey or in colour, at severities 1 to 5. The papers leave the strengths
open: these do not compare with published figures digit by digit.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import UsageError
from purpleteam.core.registry import Registry

Image = NDArray[np.float64]  # one image, (H, W, C) in [0, 1]
Corruption = Callable[[Image, float, np.random.Generator], Image]  # may leave [0, 1]
CORRUPTIONS: Registry[tuple[Corruption, tuple[float, ...]]] = Registry("corruption")
"""Each with its strength at severity 1 to 5."""
SEVERITIES = (1, 2, 3, 4, 5)
FULL_SIZE = 28  # side of the images for which lengths are given; others get them in proportion
ROUGHNESS = 1.8  # how fast the waves of fog lose height as they get shorter
THICKNESS = 1.0  # of a stroke, in pixels of an image of full size
CORNERS = 8  # of a zigzag


def corrupt(
    images: NDArray[np.uint8],
    kind: str,
    severity: int,
    *,
    seed: int = 0,
    index: Sequence[int] | NDArray[np.int64] | None = None,
) -> NDArray[np.uint8]:
    """Return uint8 images (N, H, W, C) corrupted; at severity 0 of 5 nothing changes.

    Its randomness depends on the seed, the kind and each image's place in its dataset (`index`, by
    default from 0) alone, and is the same for every severity.
    """
    change, strengths = CORRUPTIONS[kind]
    if severity not in (0, *SEVERITIES):
        raise UsageError(f"a severity is 0 (unchanged) to {SEVERITIES[-1]}, not {severity}")
    if severity == 0:
        return images.copy()
    out = np.empty_like(images)
    for row, place in enumerate(range(len(images)) if index is None else index):
        key = hashlib.sha256(f"{seed}/{kind}/{int(place)}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(key[:8], "big"))
        changed = change(images[row] / 255.0, strengths[severity - 1], rng)
        out[row] = np.rint(np.clip(changed, 0, 1) * 255).astype(np.uint8)
    return out


def graded(*strengths: float) -> Callable[[Corruption], Corruption]:
    """Register a corruption under its name, with its strength at each severity."""

    def add(change: Corruption) -> Corruption:
        CORRUPTIONS.register(change.__name__)((change, strengths))
        return change

    return add


@graded(60, 25, 12, 5, 3)
def shot_noise(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Return the counts of a sensor to which white sends `strength` photons; black stays black."""
    return rng.poisson(image * strength) / strength


@graded(0.03, 0.06, 0.09, 0.17, 0.27)
def impulse_noise(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Return the image with a share of its pixels black or white (salt and pepper)."""
    chance = rng.random(image.shape[:2])[:, :, None]
    white = rng.random(image.shape[:2])[:, :, None] < 0.5
    return np.where(chance < strength, white.astype(np.float64), image)


@graded(0.7, 1.0, 1.4, 2.0, 2.6)
def glass_blur(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Return the image seen through frosted glass: pixels trade places nearby, then blur."""
    import scipy

    height, width = image.shape[:2]
    length = min(height, width) / FULL_SIZE
    moves = rng.uniform(-1, 1, (2, height, width)) * (length * strength)
    rows, columns = np.rint(moves).astype(np.int64)
    rows = np.clip(rows + np.arange(height)[:, None], 0, height - 1)
    columns = np.clip(columns + np.arange(width), 0, width - 1)
    sigma = length * {0.7: 0.6, 1.0: 0.7, 1.4: 0.8, 2.0: 0.9, 2.6: 1.0}[strength]
    blurred: Image = scipy.ndimage.gaussian_filter(image[rows, columns], (sigma, sigma, 0))
    return blurred


@graded(3, 5, 7, 9, 11)
def motion_blur(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Return the mean of the image along a straight movement, at up to 45 degrees."""
    import scipy

    length = min(image.shape[:2]) / FULL_SIZE * strength
    angle = rng.uniform(-np.pi / 4, np.pi / 4)
    count = max(2, round(2 * length))
    total = np.zeros_like(image)
    for way in np.linspace(-length / 2, length / 2, count):
        shift = (way * np.sin(angle), way * np.cos(angle), 0)
        total += scipy.ndimage.shift(image, shift, order=1, mode="nearest")
    return np.asarray(total / count)


@graded(10, 20, 30, 40, 50)
def rotate(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Return the image turned about its centre, either way."""
    angle = _either(rng) * np.radians(strength)
    cosine, sine = np.cos(angle), np.sin(angle)
    return _read_from(image, np.array([[cosine, -sine], [sine, cosine]]))


@graded(0.9, 0.8, 0.7, 0.6, 0.5)
def scale(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Return the image shrunk towards its centre."""
    return _read_from(image, np.eye(2) / strength)


@graded(0.2, 0.4, 0.6, 0.8, 1.0)
def shear(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Return the image with its rows slid sideways, the further from the centre the more."""
    return _read_from(image, np.array([[1, 0], [_either(rng) * strength, 1]]))


@graded(2, 3, 4, 5, 6)
def translate(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Return the image shifted in any direction."""
    way = strength * min(image.shape[:2]) / FULL_SIZE
    angle = rng.uniform(0, 2 * np.pi)
    shift = way * np.array([np.sin(angle), np.cos(angle)])
    return _read_from(image, np.eye(2), shift)


def _either(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def _read_from(
    image: Image, matrix: NDArray[np.float64], shift: NDArray[np.float64] | None = None
) -> Image:
    """Return at each place p, seen from the centre, what stands at `matrix` p - `shift`."""
    import scipy

    centre = (np.array(image.shape[:2]) - 1) / 2
    offset = centre - matrix @ centre - (0 if shift is None else shift)
    layers = [
        scipy.ndimage.affine_transform(layer, matrix, offset, order=1)
        for layer in np.moveaxis(image, 2, 0)
    ]
    return np.stack(layers, axis=2)


@graded(0.1, 0.2, 0.3, 0.4, 0.5)
def brightness(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Return the image with all of it lighter by the same amount."""
    return image + strength


@graded(0.4, 0.7, 1.0, 1.5, 2.2)
def fog(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Return the image under a cloud of random waves, its contrast down by the cloud's share."""
    size = image.shape[:2]
    frequency = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.fftfreq(size[1])[None])
    frequency[0, 0] = np.inf
    cloud = np.real(np.fft.ifft2(np.fft.fft2(rng.standard_normal(size)) / frequency**ROUGHNESS))
    cloud -= cloud.min()
    cloud /= cloud.max() + 1e-12
    return np.asarray((image + strength * cloud[:, :, None]) / (1 + strength))


@graded(0.04, 0.08, 0.12, 0.18, 0.25)
def spatter(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Return the image behind drops of bright liquid, each dense in its middle."""
    import scipy

    sigma = min(image.shape[:2]) / FULL_SIZE
    field = scipy.ndimage.gaussian_filter(rng.standard_normal(image.shape[:2]), sigma)
    level = np.quantile(field, 1 - strength)  # the share of the image that is wet
    depth = np.clip((field - level) / (field.max() - level + 1e-12), 0, 1) ** 0.5
    return np.asarray(np.maximum(image, depth[:, :, None]))


@graded(2, 4, 6, 8, 10)
def stripe(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Return the image with an upright band of it inverted."""
    width = max(1, round(image.shape[1] / FULL_SIZE * strength))
    left = int(rng.random() * (image.shape[1] - width + 1))
    out = image.copy()
    out[:, left : left + width] = 1 - out[:, left : left + width]
    return out


@graded(1, 2, 3, 4, 5)
def dotted_line(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Return the image crossed by dotted white lines, one for each severity."""
    height, width = image.shape[:2]
    radius = THICKNESS * min(height, width) / FULL_SIZE
    ends = rng.random((5, 2, 2))  # drawn for all five, so that a severity adds a line
    for (top, left), (bottom, right) in ends[: int(strength)]:
        start = np.array([top * (height - 1), left * (width / 4)])
        end = np.array([bottom * (height - 1), (width - 1) - right * (width / 4)])
        count = max(2, int(np.hypot(*(end - start)) / (4 * radius)))
        dots = start + np.linspace(0, 1, count)[:, None] * (end - start)
        image = _inked(image, dots, dots, radius)
    return image


@graded(1, 2, 3, 4.5, 6)
def zigzag(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Return the image crossed by a white line that swings up and down, the wider the severer."""
    height, width = image.shape[:2]
    level = rng.uniform(0.3, 0.7) * (height - 1)
    swing = strength * height / FULL_SIZE
    across = np.linspace(0, width - 1, CORNERS)
    along = level + swing * _either(rng) * np.where(np.arange(CORNERS) % 2 == 0, 1, -1)
    points = np.stack([along, across], axis=1)
    return _inked(image, points[:-1], points[1:], THICKNESS * min(height, width) / FULL_SIZE)


@graded(0.2, 0.4, 0.6, 0.8, 1.0)
def canny_edges(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Return the image faded into its edges (Canny 1986), which alone are left at severity 5."""
    import scipy

    smooth = scipy.ndimage.gaussian_filter(image.mean(axis=2), 1.0)
    down, right = scipy.ndimage.sobel(smooth, 0), scipy.ndimage.sobel(smooth, 1)
    slope = np.hypot(down, right)
    place, step = np.indices(slope.shape), np.stack([down, right]) / (slope + 1e-12)
    ahead, behind = (
        scipy.ndimage.map_coordinates(slope, place + sign * step, order=1) for sign in (1, -1)
    )
    # Brightness changes most across an edge; what hangs together with a strong one is part of it.
    ridge = (slope >= ahead) & (slope > behind) & (slope > 0)
    weak, strong = (ridge & (slope > share * slope.max()) for share in (0.1, 0.3))
    groups, _ = scipy.ndimage.label(weak, np.ones((3, 3)))
    edges = (np.isin(groups, np.unique(groups[strong])) & weak).astype(np.float64)[:, :, None]
    return np.asarray((1 - strength) * image + strength * edges)


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
