"""How surely a net that never learned from a doubted image contradicts its label.

The idea is Confusion Training's (Qi et al. 2023, arXiv:2205.13616) turned round: not the trigger
is kept and the content unlearned, but the content learned and the trigger kept out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from purpleteam.defences.detection.training_set._base import (
    TRAINING_SET_DETECTORS,
    TrainingSetDetector,
)
from purpleteam.defences.detection.training_set._survey import Survey

__all__ = ["CleanReference"]


@TRAINING_SET_DETECTORS.register("clean_reference")
@dataclass(frozen=True, kw_only=True)
class CleanReference(TrainingSetDetector):
    """Log odds against the label by a reference that is free of the backdoor.

    An image that the reference learned from is no suspect and has a score below all that are.
    """

    def scores(self, survey: Survey) -> NDArray[np.float64]:
        """Return the log odds of the best other label against the image's own."""
        reference = survey.reference
        scores = np.zeros(len(survey.images))
        scores[reference.suspects] = -reference.margin
        known = np.ones(len(scores), bool)
        known[reference.suspects] = False
        floor = min(0.0, float(scores.min()))
        own = survey.votes[np.arange(len(scores)), survey.images.labels]
        scores[known] = floor - own[known]
        return scores
