"""SPECTRE (Hayase et al. 2021, arXiv:2104.11315): robust whitening, then quantum entropy scores."""

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.arrays import Floats
from purpleteam.defences.detection.training_set._analysis import TRAINING_SET_DETECTORS, Analysis

COMPONENTS = 32  # principal components that are kept
TRIM = 0.05  # share of a class that the covariance leaves out
ROUNDS = 5  # how often the rows that make the covariance are chosen anew
SHARPNESS = 4.0  # the paper's exponent: how much scores lean to the direction of most variance


def robustly_whitened(
    features: NDArray[np.floating], *, components: int = COMPONENTS, trim: float = TRIM
) -> Floats:
    """Return the rows (N, k) on k principal components, whitened by a trimmed covariance.

    It is that of the rows nearest to the mean in the same metric, chosen anew in each round: the
    paper's robust estimator needs a semidefinite program.
    """
    centred = features.astype(np.float64) - np.median(features, 0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    varied = values > 1e-9 * max(float(values[-1]), 1e-300)
    kept = min(components, max(1, int(varied.sum())), max(1, len(centred) // 2))
    projected = centred @ vectors[:, -kept:]
    near = np.arange(len(projected))
    white = projected
    for _ in range(ROUNDS):
        mean = projected[near].mean(0)
        scatter = np.cov(projected[near].T, bias=True).reshape(kept, kept)
        spread, axes = np.linalg.eigh(scatter)
        white = (projected - mean) @ (axes / np.sqrt(np.maximum(spread, 1e-12)))
        distance = (white**2).sum(1)
        near = np.argsort(distance, kind="stable")[: max(2, int(len(white) * (1 - trim)))]
    return np.asarray(white)


def quantum_entropy_scores(white: NDArray[np.floating]) -> Floats:
    """Return `x' Q x` (N,) for whitened rows, Q the exponential of their excess covariance."""
    covariance = white.T @ white / len(white)
    values, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
    excess = (values - 1) / max(float(values[-1]) - 1, 1e-12)
    weights = np.exp(SHARPNESS * np.clip(excess, -1, 1))
    weights /= weights.sum()
    return np.asarray(((white @ vectors) ** 2 * weights).sum(1))


@TRAINING_SET_DETECTORS.register("spectre")
def spectre(analysis: Analysis) -> Floats:
    """Return the score of each image within its class, in units of the class's median."""

    def score(features: NDArray[np.floating]) -> Floats:
        scores = quantum_entropy_scores(robustly_whitened(features))
        return np.asarray(scores / max(float(np.median(scores)), 1e-12))

    return analysis.scores_by_label(4, score)
