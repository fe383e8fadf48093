"""How surely a net that never learned from a doubted image contradicts its label."""

import numpy as np

from purpleteam.core.arrays import Floats
from purpleteam.defences.detection.training_set._analysis import TRAINING_SET_DETECTORS, Analysis


@TRAINING_SET_DETECTORS.register("clean_reference")
def clean_reference(analysis: Analysis) -> Floats:
    """Return the log odds against the label; what the net learned from lies below all suspects."""
    reference = analysis.reference
    scores = np.zeros(len(analysis.images))
    scores[reference.suspects] = -reference.margin
    known = np.ones(len(scores), bool)
    known[reference.suspects] = False
    scores[known] = min(0.0, float(scores.min())) - analysis.own_share[known]
    return scores
