"""SCAn (Tang et al. 2021, arXiv:1908.00686): is a class one group of features, or two?"""

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.arrays import Floats
from purpleteam.defences.detection.training_set._analysis import TRAINING_SET_DETECTORS, Analysis
from purpleteam.defences.detection.training_set._groups import discriminant, whitening_of


def two_groups(white: NDArray[np.floating]) -> tuple[float, Floats]:
    """Split whitened rows (N, d) of one class in two.

    Returned are twice the log likelihood ratio of two groups of equal covariance against one, and
    how far each row lies on the smaller group's side (N,); above 0 is in it.
    """
    rows = white.astype(np.float64) - white.mean(0, dtype=np.float64)
    _, vectors = np.linalg.eigh(rows.T @ rows)
    towards = discriminant(rows, rows @ vectors[:, -1])
    if towards is None:
        return 0.0, np.zeros(len(rows))
    second = towards > 0
    share = float(second.mean())
    if share > 0.5:
        towards, share = -towards, 1 - share
    gap = rows[second].mean(0) - rows[~second].mean(0) if 0 < second.sum() < len(rows) else 0.0
    return len(rows) * share * (1 - share) * float(np.sum(np.square(gap))), towards


def anomaly_index(statistics: Floats) -> Floats:
    """Return how many scaled median absolute deviations each lies above the median."""
    middle = np.median(statistics)
    spread = 1.4826 * np.median(np.abs(statistics - middle))
    return np.asarray((statistics - middle) / max(float(spread), 1e-12))


@TRAINING_SET_DETECTORS.register("scan")
def scan(analysis: Analysis) -> Floats:
    """Return the side of the smaller group times the class's anomaly index."""
    residual, groups = analysis.model_features.astype(np.float64), analysis.rows_by_label()
    for rows in groups:
        residual[rows] -= residual[rows].mean(0)
    whitening = whitening_of(residual)
    splits = [two_groups(residual[rows] @ whitening) for rows in groups]
    index = anomaly_index(np.array([np.log1p(statistic) for statistic, _ in splits]))
    scores = np.zeros(len(residual))
    for rows, (_, towards), weight in zip(groups, splits, index, strict=True):
        scale = max(float(np.abs(towards).mean()), 1e-12)
        scores[rows] = towards / scale * max(weight, 0.0)
    return scores
