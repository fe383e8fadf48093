"""What votes prove: the radius of Deep Partition Aggregation (ICLR 2021, arXiv:2006.14768).

Each part's model has one vote, or none where its part is empty. An image that is inserted into
the training set, or removed from it, changes one part and so at most one vote; an image that is
replaced by another changes two (Levine and Feizi, theorem 1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["certified_radii", "winners"]


def winners(votes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the label with the most votes, the smallest of several.

    Args:
        votes: models that answer each label, (N, classes).
    """
    first: NDArray[np.int64] = votes.argmax(axis=1)  # of several, the smallest label
    return first


def certified_radii(votes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many votes may change, to anything at all, before the winner can be another.

    With the winner c and another label c' at v and v' votes, r changed votes leave v - r against
    v' + r at worst, and c keeps a tie only against a larger label: r <= (v - v' - [c' < c]) / 2.

    Args:
        votes: models that answer each label, (N, classes), with classes >= 2.

    Returns:
        radii (N,), at least 0; exact, as `radius + 1` changed votes can make another label win.
    """
    rows, labels = np.arange(len(votes)), np.arange(votes.shape[1])
    winner = winners(votes)
    gap = votes[rows, winner][:, None] - votes - (labels < winner[:, None])  # (N, classes)
    gap[rows, winner] = np.iinfo(gap.dtype).max
    radii: NDArray[np.int64] = gap.min(axis=1) // 2
    return radii
