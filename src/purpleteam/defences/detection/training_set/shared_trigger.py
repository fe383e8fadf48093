"""What the contradicted images of one label share: nothing, unless somebody put it there."""

import numpy as np

from purpleteam.core.arrays import Floats
from purpleteam.defences.detection.training_set._analysis import TRAINING_SET_DETECTORS, Analysis


@TRAINING_SET_DETECTORS.register("shared_trigger")
def shared_trigger(analysis: Analysis) -> Floats:
    """Return how far an image lies along what its label's suspects share, in any features."""
    labels = analysis.images.labels
    scores = np.zeros(len(labels))
    for group in analysis.groups:
        scores = np.where(labels == group.label, np.maximum(scores, group.scores), scores)
    return scores
