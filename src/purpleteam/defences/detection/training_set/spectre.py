"""SPECTRE (Hayase et al. 2021, arXiv:2104.11315): robust whitening, then quantum entropy scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from purpleteam.defences.detection.training_set._base import (
    TRAINING_SET_DETECTORS,
    TrainingSetDetector,
)
from purpleteam.defences.detection.training_set._survey import Survey

__all__ = ["Spectre", "quantum_entropy_scores", "robustly_whitened"]

SHARPNESS = 4.0
"""The paper's exponent: how much the scores lean to the direction of greatest variance."""


def robustly_whitened(
    features: NDArray[np.floating], *, components: int, trim: float, rounds: int = 5
) -> NDArray[np.float64]:
    """Return the rows (N, k) on k principal components, whitened by a trimmed covariance.

    Mean and covariance come from the rows nearest to the mean in that same metric, found in a
    few rounds: a stand-in for the paper's robust estimator, which needs a semidefinite program.

    Args:
        features: (N, d) of one class.
        components: most principal components that are kept.
        trim: share of the rows that is left out, in [0, 1).
        rounds: how often the rows are chosen anew.
    """
    centred = features.astype(np.float64) - np.median(features, 0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    varied = values > 1e-9 * max(float(values[-1]), 1e-300)
    kept = min(components, max(1, int(varied.sum())), max(1, len(centred) // 2))
    projected = centred @ vectors[:, -kept:]
    near = np.arange(len(projected))
    white = projected
    for _ in range(rounds):
        mean = projected[near].mean(0)
        scatter = np.cov(projected[near].T, bias=True).reshape(kept, kept)
        spread, axes = np.linalg.eigh(scatter)
        white = (projected - mean) @ (axes / np.sqrt(np.maximum(spread, 1e-12)))
        distance = (white**2).sum(1)
        near = np.argsort(distance, kind="stable")[: max(2, int(len(white) * (1 - trim)))]
    return np.asarray(white)


def quantum_entropy_scores(white: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return `x' Q x` (N,) for whitened rows, Q the exponential of their excess covariance."""
    covariance = white.T @ white / len(white)
    values, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
    excess = (values - 1) / max(float(values[-1]) - 1, 1e-12)
    weights = np.exp(SHARPNESS * np.clip(excess, -1, 1))
    weights /= weights.sum()
    return np.asarray(((white @ vectors) ** 2 * weights).sum(1))


@TRAINING_SET_DETECTORS.register("spectre")
@dataclass(frozen=True, kw_only=True)
class Spectre(TrainingSetDetector):
    """Outliers of a class after its ordinary variation has been divided out."""

    components: int = 32
    """Principal components that are kept."""
    trim: float = 0.05
    """Share of a class that the covariance leaves out."""

    def scores(self, survey: Survey) -> NDArray[np.float64]:
        """Return the score of each image within its class, in units of the class's median."""
        scores = np.zeros(len(survey.images))
        for rows in survey.rows_by_label():
            if len(rows) < 4:
                continue
            white = robustly_whitened(
                survey.model_features[rows], components=self.components, trim=self.trim
            )
            found = quantum_entropy_scores(white)
            scores[rows] = found / max(float(np.median(found)), 1e-12)
        return scores
