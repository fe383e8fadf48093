"""Is a rebuilt image one of its class, and is it one of the training set?

A class mean looks like its class and is nobody's image. So a leak is told where rebuilt images lie
nearer to training images than to as many others, more often than chance, and nearer than the mean.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from purpleteam.core.arrays import Floats
from purpleteam.core.statistics import Rate
from purpleteam.data.images import ImageSet
from purpleteam.models.guard import Classifier
from purpleteam.models.inference import logits
from purpleteam.privacy.inversion import Rebuilt

CHANCE = 0.01  # that rebuilt images which have nothing of the training set are called a leak
CLOSER = 0.9  # of the class mean's distance to a training image: what must be fallen short of


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What rebuilt images are worth."""

    recognised: Rate
    """Those that another net takes for the class aimed at."""
    nearer: Rate
    """Those nearer to a training image of the class than to any of as many others; 0.5 is none."""
    chance: float
    """That so many or more are nearer, where nothing of the training set is in them."""
    beside_mean: float
    """Distance to the nearest training image, as a share of the class mean's; the median."""
    nearest: tuple[int, ...]
    """For each image the place of the nearest training image of its class."""

    @property
    def leak(self) -> bool:
        """Whether training images are in what was rebuilt."""
        return self.chance < CHANCE and self.beside_mean < CLOSER

    @property
    def verdict(self) -> str:
        """The same in words."""
        if self.leak:
            return "images of the training set"
        if self.recognised.low > 0.5:
            return "an image of the class, none of the training set"
        return "no image of the class"

    def to_json(self) -> dict[str, Any]:
        """Return the numbers and the verdict."""
        rates = {name: getattr(self, name).to_json() for name in ("recognised", "nearer")}
        told = {"chance": self.chance, "beside_mean": self.beside_mean, "verdict": self.verdict}
        return {**rates, **told, "leak": self.leak}


def judge(
    rebuilt: Rebuilt, *, by: Classifier, learned: ImageSet, others: ImageSet, seed: int = 0
) -> Judged:
    """Judge rebuilt images by another net, and by what they lie near to.

    Args:
        rebuilt: the images, with the classes aimed at.
        by: a net that was trained apart.
        learned: the training images.
        others: images of the same kind that were not learned.
        seed: of the draw that makes both as many.
    """
    images, rng = rebuilt.images, np.random.default_rng([seed, 6])
    said = logits(by, images.images).argmax(1)
    nearer, shares, nearest = 0, list[float](), list[int]()
    for image, label in zip(np.asarray(images.images), images.labels, strict=True):
        own, foreign = (np.flatnonzero(part.labels == label) for part in (learned, others))
        count = min(len(own), len(foreign))
        some = rng.permutation(own)[:count], rng.permutation(foreign)[:count]
        near = [
            float(_distances(part, rows, image).min(initial=math.inf))
            for part, rows in zip((learned, others), some, strict=True)
        ]
        nearer += near[0] < near[1]
        every = _distances(learned, own, image)
        mean = np.asarray(learned.images[own], np.float64).mean(0)
        shares.append(float(every.min() / max(_distances(learned, own, mean).min(), 1e-9)))
        nearest.append(int(own[every.argmin()]))
    n = len(images)
    tail = sum(math.comb(n, k) for k in range(nearer, n + 1)) / 2**n  # a sign test, one-sided
    return Judged(
        recognised=Rate.of(int((said == images.labels).sum()), n),
        nearer=Rate.of(nearer, n),
        chance=tail,
        beside_mean=float(np.median(shares)),
        nearest=tuple(nearest),
    )


def _distances(images: ImageSet, rows: np.ndarray, image: np.ndarray) -> Floats:
    """Return the L2 distance, in pixel units, of an image (H, W, C) from others."""
    apart = np.asarray(images.images[rows], np.float64) - image
    return np.asarray(np.sqrt((apart**2).sum((1, 2, 3))) / 255)
