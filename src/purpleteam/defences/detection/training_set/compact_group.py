"""A tight group of pixels of one label, in the spirit of SCAn (Tang et al. 2021)."""

import numpy as np

from purpleteam.core.arrays import Floats
from purpleteam.defences.detection.training_set._analysis import TRAINING_SET_DETECTORS, Analysis


@TRAINING_SET_DETECTORS.register("compact_group")
def compact_group(analysis: Analysis) -> Floats:
    """Return how far towards its label's tightest group an image lies, times the group's gap."""
    scores = np.zeros(len(analysis.images))
    for group in analysis.compact:
        scores += group.towards * group.gap  # 0 outside the group's label
    return scores
