"""Confident learning (Northcutt, Jiang and Chuang 2021, arXiv:1911.00068): label errors.

Written from the paper's section 3: cleanlab's package is not needed for a count and a threshold.
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


def confident_joint(
    probabilities: NDArray[np.floating], labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count given against confidently read labels from out-of-sample probabilities (N, K).

    A row is confidently read as class j where its probability of j reaches the mean probability
    of j among the rows labelled j; of several such classes the most probable counts.

    Returns:
        The joint (K, K), counts of given label i and confident label j, and each row's
        confident label (N,), -1 where there is none.
    """
    classes = probabilities.shape[1]
    thresholds = np.array(
        [
            probabilities[labels == k, k].mean() if (labels == k).any() else np.inf
            for k in range(classes)
        ]
    )
    reached = np.where(probabilities >= thresholds, probabilities, -np.inf)
    read = np.where(np.isfinite(reached).any(1), reached.argmax(1), -1)
    joint = np.zeros((classes, classes), np.int64)
    np.add.at(joint, (labels[read >= 0], read[read >= 0]), 1)
    return joint, read


@TRAINING_SET_DETECTORS.register("label_errors")
@dataclass(frozen=True, kw_only=True)
class LabelErrors(TrainingSetDetector):
    """Images confidently read as another class, by normalised margin; the rest below them."""

    def scores(self, analysis: Analysis) -> NDArray[np.float64]:
        """Return the margin against the label, 2 higher off the joint's diagonal."""
        labels = analysis.images.labels
        _, read = confident_joint(analysis.votes, labels)
        against, _ = margins(analysis.votes, labels)
        return np.asarray(-against + 2.0 * ((read >= 0) & (read != labels)))
