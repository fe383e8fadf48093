"""Hundreds of ridge classifiers on disjoint parts, and their votes on what lies outside them."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

__all__ = ["out_of_part_votes"]

RIDGE = 0.1
"""Ridge in units of the mean squared length of a row."""
CLIP = 3.0
"""Deviations at which a feature is cut: one that is rare would have the whole say in its part."""
AT_ONCE = 20
"""Learners that are asked in one product."""
ROWS = 5000


def out_of_part_votes(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: int,
    *,
    parts: int,
    seed: int,
) -> NDArray[np.float64]:
    """Return for each row the shares (N, K) of the votes of all parts but its own.

    Args:
        features: (N, d), float32.
        labels: (N,), what the learners are taught.
        classes: number of classes K.
        parts: into how many parts of equal size the rows are dealt at random.
        seed: which part a row falls into.

    Raises:
        ValueError: there are fewer than two parts, or more parts than rows.
    """
    if not 2 <= parts <= len(labels):
        raise ValueError(f"parts must be 2 to {len(labels)}, not {parts}")
    part = np.empty(len(labels), np.int64)
    part[np.random.default_rng(seed).permutation(len(labels))] = np.arange(len(labels)) % parts
    rows = np.concatenate(
        [np.clip(features, -CLIP, CLIP), np.ones((len(labels), 1), np.float32)], 1
    )
    rows /= np.sqrt(np.float32(rows.shape[1]))
    weights = [_ridge(rows[part == one], labels[part == one], classes) for one in range(parts)]
    counts = torch.zeros(len(labels), classes)
    asked, home = torch.from_numpy(rows), torch.from_numpy(part)
    for first in range(0, parts, AT_ONCE):
        some = torch.from_numpy(np.stack(weights[first : first + AT_ONCE], 1))  # (d + 1, P, K)
        for start in range(0, len(labels), ROWS):
            block = slice(start, start + ROWS)
            answers = asked[block] @ some.flatten(1)
            said = F.one_hot(answers.reshape(-1, *some.shape[1:]).argmax(2), classes)  # (n, P, K)
            other = home[block, None] != first + torch.arange(some.shape[1])
            counts[block] += (said * other[:, :, None]).sum(1)  # no vote on its own
    return (counts / counts.sum(1, keepdim=True)).double().numpy()


def _ridge(
    rows: NDArray[np.float32], labels: NDArray[np.int64], classes: int
) -> NDArray[np.float32]:
    """Return the weights (d, K) of a ridge regression on centred one-hot labels, by its dual."""
    wanted = np.eye(classes, dtype=np.float32)[labels] - np.float32(1 / classes)
    kernel = rows @ rows.T
    kernel[np.diag_indices_from(kernel)] += np.float32(RIDGE) * max(
        kernel.trace() / len(rows), 1e-6
    )
    return np.asarray(rows.T @ np.linalg.solve(kernel, wanted))
