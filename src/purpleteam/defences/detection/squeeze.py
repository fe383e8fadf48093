"""Feature squeezing: is this input adversarial? (Xu et al. 2018, arXiv:1704.01155). NumPy alone.

A copy of the image with one bit for each pixel, and one smoothed by the median of 2x2, show a
person the same digit. Where the model's answers to them differ much from that to the image itself,
the image owes its answer to what nobody sees. Attackers who know this look for images whose three
answers agree (He et al. 2017, arXiv:1706.04701): results/inputs.json says how often they find one.
"""

import math

import numpy as np

from purpleteam.core.arrays import Floats, Pixels
from purpleteam.core.errors import UsageError
from purpleteam.defences.detection.strip import Answers

INKED = 128


def distances(answers: Answers, images: Pixels, given: Floats | None = None) -> Floats:
    """Return how far (N,), in L1, the answers to squeezed images lie from those to the images.

    The larger of both distances, from 0 to 2; images are (N, H, W, C), `given` what is answered to
    them, where that is known.
    """
    given = np.asarray(answers(images), np.float64) if given is None else given
    apart = [np.abs(given - answers(squeezed(images))).sum(1) for squeezed in (one_bit, median)]
    return np.asarray(np.maximum(*apart))


def fit_squeeze(answers: Answers, trusted: Pixels, false_rejection_rate: float = 0.005) -> float:
    """Return the distance above which a further clean image lies at most so often.

    Of n images it is the k-th highest distance, k the largest whole number up to
    `false_rejection_rate` * (n + 1), whatever the distribution; UsageError for too few images.
    """
    place = math.floor(false_rejection_rate * (len(trusted) + 1) + 1e-9)
    if place < 1:
        needed = math.ceil(1 / false_rejection_rate) - 1
        few = f"needs {needed} trusted images, not {len(trusted)}"
        raise UsageError(f"false_rejection_rate {false_rejection_rate} {few}")
    return float(np.sort(distances(answers, trusted))[-place])


def one_bit(images: Pixels) -> Pixels:
    """Return the images (N, H, W, C) in black and white."""
    return np.asarray(np.where(images >= INKED, 255, 0), np.uint8)


def median(images: Pixels) -> Pixels:
    """Return the images (N, H, W, C), each pixel the upper median of its 2x2 neighbourhood.

    As `scipy.ndimage.median_filter` with a size of 2: the pixel, those above and left of it.
    """
    padded = np.pad(images, ((0, 0), (1, 0), (1, 0), (0, 0)), "edge")
    first, second = padded[:, :-1, :-1], padded[:, :-1, 1:]
    third, fourth = padded[:, 1:, :-1], padded[:, 1:, 1:]
    tops = np.maximum(first, second), np.maximum(third, fourth)
    bottoms = np.minimum(first, second), np.minimum(third, fourth)
    return np.asarray(np.maximum(np.minimum(*tops), np.maximum(*bottoms)))
