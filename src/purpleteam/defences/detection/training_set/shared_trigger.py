"""What the contradicted images of one label share: nothing, unless somebody put it there.

Hard digits and slips of the pen are contradicted each for a reason of its own. Poisoned images
all carry one trigger: whitened and without their content, they point the same way.
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


@TRAINING_SET_DETECTORS.register("shared_trigger")
@dataclass(frozen=True, kw_only=True)
class SharedTrigger(TrainingSetDetector):
    """How far an image lies along what the suspects of its label share, in deviations."""

    def scores(self, analysis: Analysis) -> NDArray[np.float64]:
        """Return each image's greatest score over the kinds of features."""
        labels = analysis.images.labels
        scores = np.zeros(len(labels))
        for group in analysis.groups:
            of_label = labels == group.label
            scores[of_label] = np.maximum(scores[of_label], group.scores[of_label])
        return scores
