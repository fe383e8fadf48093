"""A compact group inside a label: images that differ from the others of it all by the same thing.

It needs no contradicted label, so it also sees what kept its label, and poison so frequent that
small subsets learn it. The images of a label are whitened by what the other labels show, and
directions grown from outlying ones, and the directions in which the label varies the most, are
searched for a group that stands off and is tight: styles of handwriting fan out, copies of one
trigger do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

__all__ = ["HALF", "CompactGroup", "compact_groups", "split_along"]

STARTS = 200
"""Images of each label, drawn from the more outlying half, that a direction is grown from."""
ROUNDS = 4
"""How often a direction becomes the mean of the images that lie furthest along it."""
FURTHEST = 20
"""How many images that are."""
MOST_VARIED = 6
"""Directions of greatest variance that are searched as well."""
RIDGE = 0.02
"""Share of the mean variance that is added to every direction."""
LEAST_MEMBERS = 8
HALF = 0.5
"""An image belongs to the group from half its distance on."""
TAIL_SEEDS = 25
"""Most extreme images along a direction that a group grows from."""


@dataclass(frozen=True, eq=False)
class CompactGroup:
    """The tightest group that stands off within one label.

    Attributes:
        label: the label.
        gap: distance of the group from the rest of its label, over the deviations of both.
        members: places of its images.
        towards: (N,) distance of each image of the label from the rest, as a share of the
            group's; 0 for other labels.
    """

    label: int
    gap: float
    members: NDArray[np.int64]
    towards: NDArray[np.float64]


def compact_groups(
    features: NDArray[np.float32], labels: NDArray[np.int64], classes: int, *, seed: int = 0
) -> list[CompactGroup]:
    """Return the best group of each label that has images enough, from features (N, d)."""
    rows = [np.flatnonzero(labels == label) for label in range(classes)]
    scatter = [_scatter(features[some]) for some in rows]
    total = np.sum(scatter, axis=0)
    found = []
    for label, some in enumerate(rows):
        if len(some) < 4 * LEAST_MEMBERS or len(labels) - len(some) < 2 * LEAST_MEMBERS:
            continue
        others = (total - scatter[label]) / (len(labels) - len(some))
        white = _whitened(features[some], others)
        along = white @ _directions(white, np.random.default_rng((seed, label)))
        gap, towards = max((split_along(column) for column in along.T), key=lambda one: one[0])
        spread = np.zeros(len(labels))
        spread[some] = towards
        found.append(CompactGroup(label, gap, some[towards > HALF], spread))
    return found


def _whitened(rows: NDArray[np.float32], covariance: NDArray[np.float64]) -> NDArray[np.float32]:
    ridge = RIDGE * covariance.trace() / len(covariance) + 1e-9
    factor = np.linalg.cholesky(covariance + ridge * np.eye(len(covariance)))
    centred = (rows - rows.mean(0)).T
    solved = scipy.linalg.solve_triangular(factor.astype(np.float32), centred, lower=True)
    return np.ascontiguousarray(solved.T, np.float32)


def _directions(white: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return unit directions (d, M): grown from outlying rows, and those of most variance."""
    outlying = np.argsort(-(white**2).sum(1), kind="stable")[: len(white) // 2]
    starts = rng.permutation(outlying)[:STARTS]
    grown = white[starts].T
    furthest = min(FURTHEST, len(white) // 8)
    for _ in range(ROUNDS):
        along = white @ (grown / np.maximum(np.linalg.norm(grown, axis=0), 1e-12))
        places = np.argpartition(-along, furthest, 0)[:furthest]  # (furthest, M)
        grown = np.stack([white[some].mean(0) for some in places.T], 1)
    _, varied = np.linalg.eigh(white.T @ white)
    most = varied[:, -MOST_VARIED:]
    every = np.concatenate([grown, most, -most], 1)
    return np.asarray(every / np.maximum(np.linalg.norm(every, axis=0), 1e-12), np.float32)


def split_along(values: NDArray[np.floating]) -> tuple[float, NDArray[np.float64]]:
    """Return the gap of the upper group of values (N,), and how far towards it each value is.

    The group is grown from the greatest values: those beyond half the way from the median of
    the rest to the median of the group. The gap is that way over the sum of both deviations.
    """
    numbers = values.astype(np.float64)
    inside = np.zeros(len(numbers), bool)
    inside[np.argsort(numbers, kind="stable")[-TAIL_SEEDS:]] = True
    towards = np.zeros(len(numbers))
    for _ in range(20):
        if not LEAST_MEMBERS <= inside.sum() <= len(numbers) // 2:
            return 0.0, np.zeros(len(numbers))
        low, high = np.median(numbers[~inside]), np.median(numbers[inside])
        towards = (numbers - low) / max(float(high - low), 1e-12)
        if np.array_equal(towards > HALF, inside):
            break
        inside = towards > HALF
    deviations = _deviation(numbers[inside]) + _deviation(numbers[~inside])
    return float(high - low) / max(deviations, 1e-12), towards


def _scatter(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    centred = rows - rows.mean(0) if len(rows) else rows
    return np.asarray(centred.T @ centred, np.float64)


def _deviation(values: NDArray[np.float64]) -> float:
    """Return the greater of the usual deviation and the robust one, which a long tail fools."""
    robust = float(np.quantile(np.abs(values - np.median(values)), 0.6827))
    return max(robust, float(values.std()))
