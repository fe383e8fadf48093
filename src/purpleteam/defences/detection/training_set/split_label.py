"""A label that falls in two, of which the smaller part is classified as many other things."""

import numpy as np

from purpleteam.core.arrays import Floats
from purpleteam.defences.detection.training_set._analysis import TRAINING_SET_DETECTORS, Analysis


@TRAINING_SET_DETECTORS.register("split_label")
def split_label(analysis: Analysis) -> Floats:
    """Return the share of the way to the smaller part times its share of surely another thing."""
    scores = np.zeros(len(analysis.images))
    for part in analysis.splits:  # 0 outside the split's label
        scores += part.split.towards * (part.sure / len(part.split.members))
    return scores
