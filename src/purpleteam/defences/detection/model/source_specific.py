"""The smallest patch for each pair of classes, against TaCT (Tang et al. 2021, arXiv:1908.00686).

The pair is taken that lies furthest below what its row and column explain; how much smaller it is
than the median pair scatters less, and is what counts.
"""

import math
from typing import ClassVar

import numpy as np

from purpleteam.core.arrays import Floats
from purpleteam.defences.detection.model import _base as base
from purpleteam.defences.detection.model.patch import PatchInversion
from purpleteam.defences.detection.recovered import RecoveredTrigger

FEW = 15  # trusted images of a class so few that a trigger for them is half chance
USUAL = 100  # trusted images of a class with which the null was fitted
UNSETTLED = 0.125  # share of the image: where the median mask is larger, searches did not converge
NATURAL = 0.5  # share of a pair's nearness in the reference that counts as natural in the model
FEWEST_CLASSES = 4  # with fewer, rows and columns explain everything


@base.part_of(base.MODEL_DETECTORS, "source_specific")
class SourceSpecificInversion(base.ModelDetector):
    """Sizes are sums of the mask, in pixels, for every pair of classes."""

    compares: ClassVar[bool] = True
    null: ClassVar[base.Null] = base.Null(location=0.5, scale=0.11, deviation=0.2)

    steps: int = 60
    """Steps of Adam."""
    images: int = 6
    """Trusted images for each pair and step."""

    def examine(self, work: base.Scanning) -> base.Evidence | None:
        """Invert a mask and a pattern for every pair; None where too few classes or unsettled."""
        sources = sorted(set(work.labels.tolist()))
        if len(sources) < FEWEST_CLASSES:
            return None
        pairs = ((source, target) for source in sources for target in range(work.classes))
        slots = tuple((target, (source,)) for source, target in pairs if target != source)
        search = base.Search(
            work=work, slots=slots, steps=self.steps, images=self.images, stream=40
        )
        sizes = _sizes(search)
        if np.exp(np.nanmedian(sizes)) > UNSETTLED * work.images[0, 0].numel():
            return None
        natural = None
        nearer = np.nanmedian(sizes) - sizes
        if work.reference is not None:
            natural = _sizes(search.within(work.reference))
            nearer = nearer - NATURAL * np.maximum(np.nanmedian(natural) - natural, 0)
        outlying = np.nan_to_num(base.pair_outliers(sizes, self.null, natural), nan=-np.inf)
        nearer = np.nan_to_num(nearer, nan=-np.inf) / noise_of(len(work.labels) / len(sources))
        furthest = outlying.argmax(0), np.arange(work.classes)  # each target's source
        statistics = nearer[furthest]
        target = int(outlying.max(0).argmax())
        alike = nearer >= (statistics + self.null.location) / 2
        alike[furthest] = True
        recorded = np.exp(sizes).astype(object)
        recorded[np.isnan(sizes)] = None
        return base.Evidence(
            detector=self.name,
            statistics=statistics,
            standing=self.null.standing(float(statistics[target])),
            target_label=target,
            sources=tuple(tuple(np.flatnonzero(column).tolist()) for column in alike.T),
            details={"sizes": recorded.tolist()},
        )

    def recover(
        self, work: base.Scanning, target: int, sources: tuple[int, ...] | None
    ) -> RecoveredTrigger | None:
        """Return the smallest patch that works on nearly all images of the sources."""
        return PatchInversion().recover(work, target, sources)


def _sizes(search: base.Search) -> Floats:
    """Return log sizes (classes, classes) from each source to each target; NaN is no pair."""
    sizes = np.full((search.work.classes, search.work.classes), np.nan)
    targets, sources = zip(*search.slots, strict=True)
    sizes[np.ravel(sources), targets] = base.shrink_mask(search, rate=0.2).log_sizes
    return sizes


def noise_of(of_each: float) -> float:
    """Return how much wider sizes scatter with this few trusted images of a class; 1 as usual."""
    return math.sqrt(1 + max(0.0, (FEW / of_each) ** 2 - (FEW / USUAL) ** 2))
