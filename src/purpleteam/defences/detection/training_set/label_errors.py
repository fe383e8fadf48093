"""Confident learning (Northcutt, Jiang and Chuang 2021, arXiv:1911.00068), section 3."""

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.arrays import Floats, Ints
from purpleteam.defences.detection.training_set import _analysis


def confident_labels(probabilities: NDArray[np.floating], labels: Ints) -> Ints:
    """Return the most probable class of those that reach their rows' mean (N,), -1 for none."""
    thresholds = [
        probabilities[labels == k, k].mean() if (labels == k).any() else np.inf
        for k in range(probabilities.shape[1])
    ]
    reached = np.where(probabilities >= np.array(thresholds), probabilities, -np.inf)
    return np.where(np.isfinite(reached).any(1), reached.argmax(1), -1)


@_analysis.TRAINING_SET_DETECTORS.register("label_errors")
def label_errors(analysis: _analysis.Analysis) -> Floats:
    """Return the margin against the label, 2 higher where another is confidently read."""
    labels = analysis.images.labels
    read = confident_labels(analysis.votes, labels)
    against, _ = _analysis.margins(analysis.votes, labels)
    return np.asarray(-against + 2.0 * ((read >= 0) & (read != labels)))
