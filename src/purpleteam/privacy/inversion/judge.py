"""Is a rebuilt image one of its class, and is it one of the training set?

A class mean looks like its class and is nobody's image. So a leak is told where what is nearest to
the rebuilt images is a training image more often than chance makes it one, and where they are also
nearer to it than the class mean is to any.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from purpleteam.core.arrays import Bools, Floats, Ints, Singles
from purpleteam.core.errors import UsageError
from purpleteam.core.statistics import Rate
from purpleteam.data.images import ImageSet
from purpleteam.data.streamed import chunks
from purpleteam.defences.detection.training_set._analysis import penultimate
from purpleteam.models.guard import Classifier
from purpleteam.models.inference import logits
from purpleteam.privacy.inversion import Rebuilt

CHANCE = 0.01  # that rebuilt images which have nothing of the training set are called a leak
CLOSER = 0.9  # of the class mean's distance to a training image: what must be fallen short of
DRAWS = 20_000  # of which images were learned, where being learned means nothing


@dataclass(frozen=True, kw_only=True)
class Nearness:
    """What rebuilt images lie near to, by one distance."""

    nearer: Rate
    """Those of which the nearest of all images of the class is a training image."""
    expected: float
    """The same where being learned means nothing: training images among all of the class."""
    chance: float
    """That so many or more are, where being learned means nothing."""
    least_chance: float
    """What `chance` would be if all were; many that lie near to the same few images tell little."""
    beside_mean: float
    """Distance to the nearest training image, as a share of the class mean's; the median."""

    @property
    def closer(self) -> bool:
        """Whether the rebuilt images lie clearly nearer to training images than class means do."""
        return self.beside_mean < CLOSER

    def to_json(self) -> dict[str, Any]:
        """Return the numbers."""
        return {**vars(self), "nearer": self.nearer.to_json()}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What rebuilt images are worth."""

    recognised: Rate
    """Those that another net takes for the class aimed at."""
    pixels: Nearness
    """By the L2 distance of pixels."""
    features: Nearness | None
    """By the L2 distance of what the last dense layer of that net is given; None without one."""
    nearest: tuple[int, ...]
    """For each image the place of the nearest training image of its class, by pixels."""

    @property
    def by(self) -> tuple[Nearness, ...]:
        """The distances that there are."""
        return (self.pixels,) if self.features is None else (self.pixels, self.features)

    @property
    def leak(self) -> bool:
        """Whether training images are in what was rebuilt, by any of the distances."""
        level = CHANCE / len(self.by)  # so that all tests together are wrong no more often
        return any(near.closer and near.chance < level for near in self.by)

    @property
    def verdict(self) -> str:
        """The same in words."""
        if self.leak:
            return "images of the training set"
        if self.recognised.low <= 0.5:
            return "no image of the class"
        level = CHANCE / len(self.by)
        if any(near.closer and near.least_chance >= level for near in self.by):
            return "an image of the class; too few to tell whether of the training set"
        return "an image of the class, none of the training set"

    def to_json(self) -> dict[str, Any]:
        """Return the numbers and the verdict."""
        features = self.features and self.features.to_json()
        told = {"recognised": self.recognised.to_json(), "pixels": self.pixels.to_json()}
        return {**told, "features": features, "verdict": self.verdict, "leak": self.leak}


def judge(
    rebuilt: Rebuilt, *, by: Classifier, learned: ImageSet, others: ImageSet, seed: int = 0
) -> Judged:
    """Judge rebuilt images by another net, and by what they lie near to.

    The test is exact, with as many training images and others as there are: where being learned
    means nothing, each way to say which images of a class were learned is as likely as another.
    Several rebuilt images beside one image are that one image's luck, so they count together.

    Args:
        rebuilt: the images, with the classes aimed at.
        by: a net that was trained apart.
        learned: the training images.
        others: images of the same kind that were not learned.
        seed: of the draws of the test.

    Raises:
        UsageError: of a class aimed at there is no training image, or no other.
    """
    images = rebuilt.images
    for label in np.unique(images.labels):
        for name, part in (("training", learned), ("other", others)):
            if not (part.labels == label).any():
                raise UsageError(f"of class {label} there is no {name} image to compare with")
    said = logits(by, images.images).argmax(1)
    pixels, nearest = _nearness(images, learned, others, None, seed)
    dense = isinstance(by, nn.Module) and any(isinstance(m, nn.Linear) for m in by.modules())
    return Judged(
        recognised=Rate.of(int((said == images.labels).sum()), len(images)),
        pixels=pixels,
        features=_nearness(images, learned, others, by, seed)[0] if dense else None,
        nearest=nearest,
    )


def _nearness(
    images: ImageSet, learned: ImageSet, others: ImageSet, by: Any, seed: int
) -> tuple[Nearness, tuple[int, ...]]:
    """Compare rebuilt images with those of their classes, in pixels or as the net `by` sees them.

    Also returns the place of the nearest training image of each.
    """
    count = len(images)
    place, share, expected = np.zeros(count, np.int64), np.zeros(count), np.zeros(count)
    is_learned = np.zeros(count, bool)
    rng, drawn = np.random.default_rng([seed, 6]), np.zeros(DRAWS, np.int64)
    for label in np.unique(images.labels):
        rows = np.flatnonzero(images.labels == label)
        own, foreign = (np.flatnonzero(part.labels == label) for part in (learned, others))
        mean = np.asarray(learned.images[own], np.float64).mean(0).round().astype(np.uint8)
        shown = _seen(np.concatenate([np.asarray(images.images)[rows], mean[None]]), by)
        to_own = _distances(_seen(learned.images[own], by), shown)  # (rebuilt and the mean, own)
        to_foreign = _distances(_seen(others.images[foreign], by), shown)
        place[rows] = own[to_own[:-1].argmin(1)]
        share[rows] = to_own[:-1].min(1) / max(float(to_own[-1].min()), 1e-9)
        both = np.concatenate([to_foreign, to_own], 1)[:-1]  # of equals the first: no leak
        first = both.argmin(1)
        is_learned[rows] = first >= len(foreign)
        expected[rows] = len(own) / both.shape[1]
        drawn += _drawn(np.unique(first, return_counts=True)[1], len(own), both.shape[1], rng)
    found = int(is_learned.sum())
    chance, least = ((1 + (drawn >= many).sum()) / (1 + DRAWS) for many in (found, count))
    near = Nearness(
        nearer=Rate.of(found, count),
        expected=float(expected.mean()),
        chance=float(chance),
        least_chance=float(least),
        beside_mean=float(np.median(share)),
    )
    return near, tuple(place.tolist())


def _drawn(times: Ints, learned: int, total: int, rng: np.random.Generator) -> Ints:
    """Return how often a learned image is nearest, (DRAWS,), where luck says which were learned.

    `times` has for each image that is nearest to any how many it is nearest to. Which of `total`
    images are the `learned` ones is drawn without putting back.
    """
    left, found = np.full(DRAWS, learned), np.zeros(DRAWS, np.int64)
    for taken, count in enumerate(times):
        hit: Bools = rng.random(DRAWS) * (total - taken) < left
        left = left - hit
        found += count * hit
    return found


def _seen(images: Any, by: Any) -> Singles:
    """Return images (N, H, W, C) as rows (N, D): their pixels in [0, 1], or the net's features."""
    if by is not None:
        return penultimate(by, np.asarray(images))
    parts = [part.reshape(len(part), -1) / np.float32(255) for _, part in chunks(images)]
    return np.concatenate(parts)


def _distances(rows: Singles, points: Singles) -> Floats:
    """Return the L2 distances (points, rows)."""
    return np.stack([np.linalg.norm((rows - one).astype(np.float64), axis=1) for one in points])
