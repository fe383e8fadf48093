"""Activation Clustering (Chen et al. 2018, arXiv:1811.03728), with PCA in the place of ICA."""

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.arrays import Floats
from purpleteam.defences.detection.training_set._analysis import TRAINING_SET_DETECTORS, Analysis

COMPONENTS = 10  # dimensions that are kept before clustering


def two_clusters(features: NDArray[np.floating], seed: int = 0) -> tuple[Floats, float]:
    """Return how much nearer rows (N, d) are to the smaller of two clusters (N,), and its share."""
    from sklearn.cluster import KMeans  # slow to import, and no part of the verdict
    from sklearn.decomposition import PCA

    kept = min(COMPONENTS, *features.shape)
    projected = PCA(kept, svd_solver="full").fit_transform(features.astype(np.float64))
    clusters = KMeans(2, n_init=4, random_state=seed).fit(projected)
    sizes = np.bincount(clusters.labels_, minlength=2)
    distances = clusters.transform(projected)  # (N, 2)
    small = int(sizes.argmin())
    return distances[:, 1 - small] - distances[:, small], float(sizes.min() / sizes.sum())


@TRAINING_SET_DETECTORS.register("activation_clustering")
def activation_clustering(analysis: Analysis) -> Floats:
    """Return the nearness to the smaller cluster, higher the smaller the share that it holds."""

    def score(features: NDArray[np.floating]) -> Floats:
        nearness, share = two_clusters(features, analysis.seed)
        return nearness / max(float(np.abs(nearness).mean()), 1e-12) * (0.5 - share)

    return analysis.scores_by_label(4, score)
