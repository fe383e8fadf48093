"""SCAn (Tang et al. 2021, arXiv:1908.00686): is a class one group of features, or two?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from purpleteam.defences.detection.training_set._analysis import (
    TRAINING_SET_DETECTORS,
    Analysis,
    TrainingSetDetector,
)
from purpleteam.defences.detection.training_set._splits import discriminant


@dataclass(frozen=True, eq=False)
class TwoGroups:
    """The best split of one class in two groups of equal covariance."""

    statistic: float
    """Twice the log likelihood ratio of two groups against one."""
    towards: NDArray[np.float64]
    """(N,) how far each row lies on the smaller group's side; above 0 is in it."""
    share: float
    """Share of the rows in the smaller group."""


def two_groups(white: NDArray[np.floating]) -> TwoGroups:
    """Split rows (N, d), whitened by the variation that all classes share.

    The split begins along the direction of greatest variance.
    """
    rows = white.astype(np.float64) - white.mean(0, dtype=np.float64)
    _, vectors = np.linalg.eigh(rows.T @ rows)
    towards = discriminant(rows, rows @ vectors[:, -1])
    if towards is None:
        return TwoGroups(0.0, np.zeros(len(rows)), 0.0)
    second = towards > 0
    share = float(second.mean())
    if share > 0.5:
        towards, share = -towards, 1 - share
    gap = rows[second].mean(0) - rows[~second].mean(0) if 0 < second.sum() < len(rows) else 0.0
    statistic = len(rows) * share * (1 - share) * float(np.sum(np.square(gap)))
    return TwoGroups(statistic, towards, share)


@TRAINING_SET_DETECTORS.register("scan")
@dataclass(frozen=True, kw_only=True)
class SCAn(TrainingSetDetector):
    """The side of its class that an image falls on, weighed by how surely there are two."""

    components: int = 32
    """Principal components of the variation within classes."""

    def scores(self, analysis: Analysis) -> NDArray[np.float64]:
        """Return the side of the smaller group times the class's anomaly index."""
        features = analysis.model_features.astype(np.float64)
        groups = analysis.rows_by_label()
        residual = features.copy()
        for rows in groups:
            residual[rows] -= residual[rows].mean(0)
        values, vectors = np.linalg.eigh(residual.T @ residual / len(residual))
        kept = vectors[:, -self.components :] / np.sqrt(
            np.maximum(values[-self.components :], 1e-6 * max(float(values[-1]), 1e-12))
        )
        splits = [two_groups(residual[rows] @ kept) for rows in groups]
        index = anomaly_index(np.array([np.log1p(split.statistic) for split in splits]))
        scores = np.zeros(len(features))
        for rows, split, weight in zip(groups, splits, index, strict=True):
            scale = max(float(np.abs(split.towards).mean()), 1e-12)
            scores[rows] = split.towards / scale * max(weight, 0.0)
        return scores


def anomaly_index(statistics: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how many scaled median absolute deviations each lies above the median."""
    middle = np.median(statistics)
    spread = 1.4826 * np.median(np.abs(statistics - middle))
    return np.asarray((statistics - middle) / max(float(spread), 1e-12))
