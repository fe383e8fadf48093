"""Votes of learners on small disjoint parts, after DPA (Levine and Feizi 2021, arXiv:2006.14768).

A few poisoned images among many parts are too few in each to teach a trigger. What a part's
learner says of the images outside its part is therefore hardly poisoned, and where the vote
speaks against a label, the label is in doubt. The learners are ridge classifiers on features
that no label has touched, so that hundreds of them take seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from purpleteam.defences.detection.training_set._analysis import (
    TRAINING_SET_DETECTORS,
    Analysis,
    TrainingSetDetector,
)
from purpleteam.defences.detection.training_set._votes import margins


@TRAINING_SET_DETECTORS.register("small_subsets")
@dataclass(frozen=True, kw_only=True)
class SmallSubsets(TrainingSetDetector):
    """The share of the out-of-part votes for another label, less the share for its own."""

    def scores(self, analysis: Analysis) -> NDArray[np.float64]:
        """Return how far the vote prefers another label, in [-1, 1]."""
        margin, _ = margins(analysis.votes, analysis.images.labels)
        return -margin
