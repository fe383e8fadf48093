"""Votes of learners on small disjoint parts, and margins of scores and votes."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

RIDGE = 0.1  # ridge in units of the mean squared length of a row
CLIP = 3.0  # deviations at which a feature is cut: a rare one would decide alone in its part
AT_ONCE = 20  # learners that are asked in one product
ROWS = 5000


def margins(
    table: NDArray[np.floating], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return each row's score of its label less the best other (N,), and which that is (N,)."""
    rows = np.arange(len(labels))
    others = table.astype(np.float64)
    own = others[rows, labels]
    others[rows, labels] = -np.inf
    rival = others.argmax(1)
    return own - others[rows, rival], rival


def log_probabilities(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return log softmax (N, K) of logits (N, K)."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def out_of_part_votes(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: int,
    *,
    parts: int,
    seed: int,
) -> NDArray[np.float64]:
    """Return for each row the shares (N, K) of the votes of all parts but its own.

    The rows (N, d) are dealt at random into `parts` of equal size; a ridge classifier learns each.

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
    weights = [_ridge(rows[part == k], labels[part == k], classes) for k in range(parts)]
    counts = torch.zeros(len(labels), classes)
    asked, home = torch.from_numpy(rows), torch.from_numpy(part)
    for first in range(0, parts, AT_ONCE):
        some = torch.from_numpy(np.stack(weights[first : first + AT_ONCE], 1))  # (d + 1, P, K)
        for start in range(0, len(labels), ROWS):
            block = slice(start, start + ROWS)
            answers = asked[block] @ some.flatten(1)
            votes = F.one_hot(answers.reshape(-1, *some.shape[1:]).argmax(2), classes)  # (n, P, K)
            other = home[block, None] != first + torch.arange(some.shape[1])
            counts[block] += (votes * other[:, :, None]).sum(1)  # no vote on its own
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
