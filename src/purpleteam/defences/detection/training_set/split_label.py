"""A label that falls in two, of which the smaller part is classified as many other things.

After SCAn (Tang et al. 2021, arXiv:1908.00686), in features that need no label, and with the
predictions of a net that never saw the part.
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


@TRAINING_SET_DETECTORS.register("split_label")
@dataclass(frozen=True, kw_only=True)
class SplitLabel(TrainingSetDetector):
    """Where an image lies on the line to its label's smaller part, weighed by its predictions."""

    def scores(self, analysis: Analysis) -> NDArray[np.float64]:
        """Return the share of the way to the part times the share that is surely something else."""
        scores = np.zeros(len(analysis.images))
        for part in analysis.splits:  # 0 outside the split's label
            scores += part.split.towards * (part.sure / len(part.split.members))
        return scores
