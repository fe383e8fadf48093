"""Whitened residuals: what is left of an image's features when its content is taken away.

After SPECTRE (Hayase et al. 2021, arXiv:2104.11315), robust in another way: mean and covariance
come from images whose label is not in doubt, and the scale of a score from others of them, so
that a direction that overfits is not mistaken for a signal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Whitened", "whiten"]

RIDGE = 0.02
"""Share of the mean variance that is added to every direction."""
NORMAL_68 = 0.6827
"""Share of a normal distribution within one deviation of its middle."""


@dataclass(frozen=True, eq=False)
class Whitened:
    """Residuals in which images of undoubted label vary alike in all directions.

    Attributes:
        rows: (N, d) residuals, whitened, without what tells the classes apart.
        labels: (N,) labels as they stand in the set.
        check: places of undoubted images that no estimate was made from.
    """

    rows: NDArray[np.float32]
    labels: NDArray[np.int64]
    check: NDArray[np.int64]

    def scores(self, members: NDArray[np.int64], label: int) -> NDArray[np.float64]:
        """Return how far each image (N,) lies along the mean of the members, in deviations.

        A member is compared with the mean of the *other* members, so that a group of strangers
        gains nothing from its own noise. Middle and deviation are those of undoubted images, of
        all labels or of `label`, whichever is the stricter.

        Raises:
            ValueError: there are fewer than two members.
        """
        if len(members) < 2:
            raise ValueError(f"members must be at least 2, not {len(members)}")
        mean = self.rows[members].mean(0)
        found = (self.rows @ mean).astype(np.float64)
        own = (self.rows[members].astype(np.float64) ** 2).sum(1)
        found[members] = (len(members) * found[members] - own) / (len(members) - 1)
        middle, deviation = _middle_and_deviation(found[self.check])
        alike = self.check[self.labels[self.check] == label]
        if len(alike) >= 20:
            of_label = _middle_and_deviation(found[alike])
            middle, deviation = max(middle, of_label[0]), max(deviation, of_label[1])
        return np.asarray((found - middle) / max(deviation, 1e-12))

    def apartness(self, members: NDArray[np.int64]) -> float:
        """Return how unlike their content the members are, apart from what they share.

        It is the median squared length across their mean, as a multiple of undoubted images'. A
        planted image is an ordinary one of its content but for the trigger: about 1.
        """
        mean = self.rows[members].mean(0)
        mean = mean / max(float(np.linalg.norm(mean)), 1e-12)
        some = self.rows[np.concatenate([members, self.check])].astype(np.float64)
        across = (some**2).sum(1) - (some @ mean) ** 2
        ordinary = max(float(np.median(across[len(members) :])), 1e-12)
        return float(np.median(across[: len(members)])) / ordinary


def whiten(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    content: NDArray[np.int64],
    trusted: NDArray[np.int64],
    *,
    seed: int = 0,
) -> Whitened:
    """Take content away and whiten what is left.

    Args:
        features: (N, d).
        labels: (N,) labels as they stand in the set.
        content: (N,) what each image shows: its label, unless that is in doubt.
        trusted: places of the images whose label is not in doubt.
        seed: which half of them the estimates come from, and which half checks them.
    """
    order = np.random.default_rng(seed).permutation(trusted)
    half = len(order) // 2
    fit, check = order[:half], np.sort(order[half:])
    present = np.unique(content[fit])
    means = np.stack([features[fit[content[fit] == one]].mean(0) for one in present])
    overall = features[fit].mean(0)
    table = np.tile(overall, (int(max(content.max(), present.max())) + 1, 1))
    table[present] = means
    residual = features - table[content]
    covariance = residual[fit].T @ residual[fit] / max(len(fit), 1)
    values, vectors = np.linalg.eigh(covariance.astype(np.float64))
    values = np.maximum(values, 0)
    whitening = (vectors / np.sqrt(values + RIDGE * values.mean() + 1e-12)).astype(np.float32)
    rows = residual @ whitening
    between = ((means - overall) @ whitening).T  # (d, K)
    basis, sizes, _ = np.linalg.svd(between, full_matrices=False)
    basis = basis[:, sizes > 1e-3 * max(float(sizes[0]), 1e-12)][:, : len(present) - 1]
    rows -= (rows @ basis) @ basis.T
    return Whitened(rows, labels, check)


def _middle_and_deviation(values: NDArray[np.float64]) -> tuple[float, float]:
    middle = float(np.median(values))
    return middle, float(np.quantile(np.abs(values - middle), NORMAL_68))
