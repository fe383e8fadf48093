"""How far a table of scores prefers a label to the best other one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["log_probabilities", "margins"]


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
