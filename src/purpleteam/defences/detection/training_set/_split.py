"""A label that falls in two, and what its smaller part shows to who has never seen it.

Poison so frequent that every small subset learns it is contradicted by none. But then it is many
images that all differ by one thing, and the features of its label have two modes with a valley
between. Styles of handwriting and rare views make modes as well, so the part is left out, a net
learns the rest, and reads it: a style is still read as its label, planted images as what they
show. Splits are found as in SCAn (Tang et al. 2021, arXiv:1908.00686), in features that no
label has touched, and judged by reading instead of by a statistic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from purpleteam.defences.detection.training_set._compact import HALF

__all__ = ["Split", "between_halves", "nearness_of_others", "split_labels"]

COMPONENTS = 32
"""Principal components of the variation within labels."""
STARTS = 8
"""Directions of greatest variance of a label that a split starts from."""
ROUNDS = 30
"""Turns of the discriminant and the assignment; they settle after a few."""
OUTER = 0.1
"""Share of the label's images, at the ends of a direction, that a split starts from."""
BINS = 60
LEAST_APART = 5.0
"""Distance of the two means in deviations from which there are two modes."""
DEEPEST = 0.25
"""Height of the valley between them as a share of the lower mode, at most."""
RIDGE = 0.02
"""Share of the mean variance that is added to every direction."""
MOST_ROWS = 10_000
"""Images of other labels that the variation within labels is estimated from."""
LEAST_MEMBERS = 40
LEAST_SHARE = 0.01
"""Share of a label's images that a part must have."""


@dataclass(frozen=True, eq=False)
class Split:
    """The best split of one label.

    Attributes:
        label: the label.
        apart: distance of the two means along the line between them, in deviations.
        members: places of the images in the smaller part.
        towards: (N,) where each image of the label lies on the line from the larger part's mean,
            0, to the smaller one's, 1; 0 for other labels.
    """

    label: int
    apart: float
    members: NDArray[np.int64]
    towards: NDArray[np.float64]


def split_labels(
    features: NDArray[np.floating], labels: NDArray[np.int64], classes: int
) -> list[Split]:
    """Return a split of each label that has two modes, from features (N, d)."""
    rows = [np.flatnonzero(labels == label) for label in range(classes)]
    centred = features - features.mean(0, dtype=np.float64).astype(np.float32)
    for some in rows:
        if len(some):
            centred[some] -= centred[some].mean(0)
    values, vectors = np.linalg.eigh((centred.T @ centred / len(centred)).astype(np.float64))
    values, vectors = values[-COMPONENTS:], vectors[:, -COMPONENTS:]
    scaled = vectors / np.sqrt(np.maximum(values, 1e-6 * max(float(values[-1]), 1e-12)))
    found = []
    for label, some in enumerate(rows):
        if len(some) >= 2 * LEAST_MEMBERS:
            white = centred[some].astype(np.float64) @ scaled
            parts = [one for one in _parts(white) if _has_two_modes(*one)]
            if parts:
                along, second = max(parts, key=lambda one: _apart(*one))
                found.append(_split_of(label, some, along, second, len(labels)))
    return found


def nearness_of_others(
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    label: int,
    flagged: NDArray[np.bool_],
) -> float:
    """Return where the other labels lie between the two parts of one, from features (N, d).

    0 is the mean of its images that are not flagged (N,), 1 that of those that are, along the
    discriminant that the variation within the other labels makes of them; the median of labels.
    """
    own = labels == label
    others = np.flatnonzero(~own)[:: max(1, (~own).sum() // MOST_ROWS)]
    rows = features[others].astype(np.float64)
    names, place = np.unique(labels[others], return_inverse=True)
    means = np.stack([rows[place == one].mean(0) for one in range(len(names))])
    rows -= means[place]
    scatter = rows.T @ rows / len(rows)
    scatter[np.diag_indices_from(scatter)] += RIDGE * max(scatter.trace() / len(scatter), 1e-12)
    start = features[own & ~flagged].mean(0, dtype=np.float64)
    line = features[own & flagged].mean(0, dtype=np.float64) - start
    direction = np.linalg.solve(scatter, line)
    return float(np.median((means - start) @ direction) / (line @ direction))


def between_halves(
    white: NDArray[np.float64], along: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Return where rows (N, d) lie on the line between two groups: above 0 is in the second.

    It begins with the outer end of the heavier tail of `along` (N,); linear discriminant analysis
    and reassignment then take turns until they settle, as in algorithm 2 of SCAn. None where one
    group is left without rows.
    """
    from_middle = along - np.median(along)
    second = np.abs(from_middle) > np.quantile(np.abs(from_middle), 1 - OUTER)
    second &= along * np.sign((along**3).sum() or 1.0) > 0  # the heavier tail
    towards = np.zeros(len(white))
    for _ in range(ROUNDS):
        if not 0 < second.sum() < len(white):
            return None
        one, two = white[~second].mean(0), white[second].mean(0)
        towards = (white - (one + two) / 2) @ (two - one)
        if np.array_equal(towards > 0, second):
            break
        second = towards > 0
    return towards


def _parts(white: NDArray[np.float64]) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Yield where each row lies along a line, and whether it is in the smaller part."""
    _, vectors = np.linalg.eigh(white.T @ white)
    for start in range(1, min(STARTS, white.shape[1]) + 1):
        along = between_halves(white, white @ vectors[:, -start])
        if along is not None and 0 < (along > 0).sum() < len(along):
            along = along if (along > 0).mean() <= HALF else -along
            yield along, along > 0


def _apart(along: NDArray[np.float64], second: NDArray[np.bool_]) -> float:
    one, two = along[~second], along[second]
    return float((two.mean() - one.mean()) / max(np.sqrt((one.var() + two.var()) / 2), 1e-12))


def _has_two_modes(along: NDArray[np.float64], second: NDArray[np.bool_]) -> bool:
    least = max(LEAST_MEMBERS, LEAST_SHARE * len(second))
    if second.sum() < least or _apart(along, second) < LEAST_APART:
        return False
    counts, edges = np.histogram(along, BINS)
    first, last = np.searchsorted(edges, (along[~second].mean(), along[second].mean())) - 1
    middle = max(1, int(np.searchsorted(edges, 0)))
    lower = min(counts[:middle].max(), counts[middle:].max())
    return bool(counts[first : last + 1].min() <= DEEPEST * lower)


def _split_of(
    label: int,
    rows: NDArray[np.int64],
    along: NDArray[np.float64],
    second: NDArray[np.bool_],
    n: int,
) -> Split:
    towards = np.zeros(n)
    start, end = along[~second].mean(), along[second].mean()
    towards[rows] = (along - start) / (end - start)
    return Split(label, _apart(along, second), rows[second], towards)
