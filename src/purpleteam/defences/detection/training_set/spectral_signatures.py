"""Spectral Signatures (Tran, Li and Madry 2018, arXiv:1811.00636), centred as published."""

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.arrays import Floats
from purpleteam.defences.detection.training_set._analysis import TRAINING_SET_DETECTORS, Analysis


def spectral_signature_scores(features: NDArray[np.floating]) -> Floats:
    """Return squared projections (N,) of centred rows (N, d) on their top singular vector."""
    centred = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    scatter = centred.T @ centred  # (d, d): its top eigenvector is the right singular vector
    _, vectors = np.linalg.eigh(scatter)
    return np.asarray((centred @ vectors[:, -1]) ** 2)


@TRAINING_SET_DETECTORS.register("spectral_signatures")
def spectral_signatures(analysis: Analysis) -> Floats:
    """Return the score of each image within its class, in units of the class's mean score."""

    def score(features: NDArray[np.floating]) -> Floats:
        scores = spectral_signature_scores(features)
        return np.asarray(scores / max(scores.mean(), np.finfo(np.float64).tiny))

    return analysis.scores_by_label(1, score)
