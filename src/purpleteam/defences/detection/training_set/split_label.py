"""A label that falls in two, of which the smaller part is read as many other things.

After SCAn (Tang et al. 2021, arXiv:1908.00686), in features that no label has touched, and with a
net that never saw the part to say what it shows.
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

__all__ = ["SplitLabel"]


@TRAINING_SET_DETECTORS.register("split_label")
@dataclass(frozen=True, kw_only=True)
class SplitLabel(TrainingSetDetector):
    """Where an image lies on the line to its label's smaller part, weighed by how that is read."""

    def scores(self, survey: Survey) -> NDArray[np.float64]:
        """Return the share of the way to the part times the share that is surely something else."""
        scores = np.zeros(len(survey.images))
        for part in survey.splits:  # 0 outside the split's label
            scores += part.split.towards * (part.sure / len(part.split.members))
        return scores
