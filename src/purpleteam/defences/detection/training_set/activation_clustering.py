"""Activation Clustering (Chen et al. 2018, arXiv:1811.03728): a class that falls into two parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from purpleteam.defences.detection.training_set._analysis import (
    TRAINING_SET_DETECTORS,
    Analysis,
    TrainingSetDetector,
)


def two_clusters(
    features: NDArray[np.floating], *, components: int = 10, seed: int = 0
) -> tuple[NDArray[np.float64], float]:
    """Split the features (N, d) of one class in two by k-means after a projection.

    Returns:
        How much nearer each row is to the centre of the smaller cluster than to the other's
        (N,), and the share of the rows that the smaller cluster holds. The paper projects with
        ICA; principal components span the same space and never fail to converge.
    """
    kept = min(components, *features.shape)
    projected = PCA(kept, svd_solver="full").fit_transform(features.astype(np.float64))
    clusters = KMeans(2, n_init=4, random_state=seed).fit(projected)
    sizes = np.bincount(clusters.labels_, minlength=2)
    distances = clusters.transform(projected)  # (N, 2)
    small = int(sizes.argmin())
    return distances[:, 1 - small] - distances[:, small], float(sizes.min() / sizes.sum())


@TRAINING_SET_DETECTORS.register("activation_clustering")
@dataclass(frozen=True, kw_only=True)
class ActivationClustering(TrainingSetDetector):
    """The smaller of two clusters of a class, the more suspicious the smaller it is."""

    components: int = 10
    """Dimensions that are kept before clustering."""

    def scores(self, analysis: Analysis) -> NDArray[np.float64]:
        """Return the nearness to the smaller cluster over the share that it holds."""
        scores = np.zeros(len(analysis.images))
        for rows in analysis.rows_by_label():
            if len(rows) < 4:
                continue
            nearness, share = two_clusters(
                analysis.model_features[rows], components=self.components, seed=analysis.seed
            )
            scale = max(float(np.abs(nearness).mean()), 1e-12)
            scores[rows] = nearness / scale * (0.5 - share)
        return scores
