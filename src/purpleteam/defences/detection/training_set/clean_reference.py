"""How surely a net that never learned from a doubted image contradicts its label.

Confusion Training (Qi et al. 2023, arXiv:2205.13616) keeps the trigger and unlearns the content;
here the content is learned and the trigger kept out.
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


@TRAINING_SET_DETECTORS.register("clean_reference")
@dataclass(frozen=True, kw_only=True)
class CleanReference(TrainingSetDetector):
    """Log odds against the label by a reference that is free of the backdoor.

    An image that the reference learned from is no suspect and has a score below all that are.
    """

    def scores(self, analysis: Analysis) -> NDArray[np.float64]:
        """Return the log odds of the best other label against the image's own."""
        reference = analysis.reference
        scores = np.zeros(len(analysis.images))
        scores[reference.suspects] = -reference.margin
        known = np.ones(len(scores), bool)
        known[reference.suspects] = False
        floor = min(0.0, float(scores.min()))
        scores[known] = floor - analysis.own_share[known]
        return scores
