"""Is a rebuilt image one of its class, and is it one of the training set?

A class mean looks like its class and is nobody's image. So a leak is told where what is nearest to
the rebuilt images is a training image more often than chance makes it one, and where they are also
nearer to it than the class mean is to any.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from purpleteam.core.arrays import Bools, Ints, Singles
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
    """Judge rebuilt images by another net, and by what they lie near to; see `Judge`."""
    return Judge(by=by, learned=learned, others=others, seed=seed)(rebuilt)


@dataclass(frozen=True, kw_only=True, eq=False)
class Judge:
    """Judges rebuilt images by another net, and by what they lie near to.

    The test is exact, with as many training images and others as there are: where being learned
    means nothing, each way to say which images of a class were learned is as likely as another.
    Several rebuilt images beside one image are that one image's luck, so they count together.

    Attributes:
        by: a net that was trained apart.
        learned: the training images.
        others: images of the same kind that were not learned.
        seed: of the draws of the test.
    """

    by: Classifier
    learned: ImageSet
    others: ImageSet
    seed: int = 0
    _features: dict[int, tuple[Singles, ...]] = field(default_factory=dict, init=False)

    def __call__(self, rebuilt: Rebuilt) -> Judged:
        """Judge images, whose labels are the classes aimed at.

        Raises:
            UsageError: of a class aimed at there is no training image, or no other.
        """
        images, net = rebuilt.images, self.by
        for label in np.unique(images.labels):
            for name, part in (("training", self.learned), ("other", self.others)):
                if not (part.labels == label).any():
                    raise UsageError(f"of class {label} there is no {name} image to compare with")
        said = logits(net, images.images).argmax(1)
        dense = isinstance(net, nn.Module) and any(isinstance(m, nn.Linear) for m in net.modules())
        pixels, nearest = self._nearness(images, None)
        return Judged(
            recognised=Rate.of(int((said == images.labels).sum()), len(images)),
            pixels=pixels,
            features=self._nearness(images, net)[0] if dense else None,
            nearest=nearest,
        )

    def _nearness(self, images: ImageSet, net: Any) -> tuple[Nearness, tuple[int, ...]]:
        """Compare images with those of their classes, in pixels or as the net sees them.

        Also returns the place of the nearest training image of each.
        """
        count = len(images)
        place, share, expected = np.zeros(count, np.int64), np.zeros(count), np.zeros(count)
        is_learned = np.zeros(count, bool)
        rng, drawn = np.random.default_rng([self.seed, 6]), np.zeros(DRAWS, np.int64)
        for label in np.unique(images.labels):
            rows = np.flatnonzero(images.labels == label)
            learned, others, mean = self._of_class(int(label), net)
            shown = np.concatenate([_seen(np.asarray(images.images)[rows], net), mean])
            to_learned, to_others = _distances(learned, shown), _distances(others, shown)
            place[rows] = np.flatnonzero(self.learned.labels == label)[to_learned[:-1].argmin(1)]
            share[rows] = to_learned[:-1].min(1) / max(float(to_learned[-1].min()), 1e-9)
            both = np.concatenate([to_others, to_learned], 1)[:-1]  # of equals the first: no leak
            first, total = both.argmin(1), both.shape[1]
            is_learned[rows] = first >= len(others)
            expected[rows] = len(learned) / total
            drawn += _drawn(np.unique(first, return_counts=True)[1], len(learned), total, rng)
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

    def _of_class(self, label: int, net: Any) -> tuple[Singles, ...]:
        """Return training images, others and the mean of the first; features are kept."""
        if net is not None and label in self._features:
            return self._features[label]
        both = self.learned, self.others
        learned, others = (part.images[np.flatnonzero(part.labels == label)] for part in both)
        mean = np.asarray(learned, np.float64).mean(0).round().astype(np.uint8)[None]
        found = tuple(_seen(part, net) for part in (learned, others, mean))
        if net is not None:
            self._features[label] = found
        return found


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


def _distances(rows: Singles, points: Singles) -> Singles:
    """Return the L2 distances (points, rows)."""
    return np.stack([np.linalg.norm(rows - point, axis=1) for point in points])
