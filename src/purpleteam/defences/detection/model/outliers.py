"""How far the smallest size stands below the rest, and how often that happens in clean models.

Neural Cleanse (Wang et al. 2019) divides a class's distance from the median by the median
absolute deviation, of sizes as they are. With ten classes that deviation is a coarse figure, and
sizes are skewed. Here sizes are compared on a log scale; each class is left out of what it is
compared with; and the deviation is drawn towards the one that clean models have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Null", "pair_outliers", "small_outliers"]

CONSISTENT = 1.4826
"""Makes the median absolute deviation of normal numbers their standard deviation."""
MUTUAL = 0.7
"""Share of the opposite pair's nearness that counts as natural."""
NATURAL = 0.75
"""Share of a pair's nearness in the student that counts as natural in the model."""
REWEIGHTED = 20
"""Rounds of reweighting."""
FLAT = 0.02
"""Log sizes that differ by less count alike: no weight is larger than its inverse."""


@dataclass(frozen=True, kw_only=True)
class Null:
    """What a detector's statistic is in clean models: a Gumbel law, and a usual deviation.

    Raises:
        ValueError: a scale or deviation that is not above 0.
    """

    location: float
    scale: float
    deviation: float
    """Usual deviation of log sizes between the classes of a clean model."""
    weight: float = 5.0
    """The usual deviation counts as so many classes beside the model's own."""

    def __post_init__(self) -> None:
        for name in ("scale", "deviation"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.weight < 0:
            raise ValueError(f"weight must be at least 0, not {self.weight}")

    def standing(self, statistic: float) -> float:
        """Return how far a statistic lies beyond the law's location, in scales of it.

        Detectors of different scales compare by it. It is no probability: a law that was fitted
        to some dozens of nets says nothing of a tail that none of them is in.
        """
        return (statistic - self.location) / self.scale


def small_outliers(log_sizes: NDArray[np.float64], null: Null) -> NDArray[np.float64]:
    """Return (k,): how far each size lies below the median of the others, in deviations."""
    found = np.empty(len(log_sizes))
    for one in range(len(log_sizes)):
        others = np.delete(log_sizes, one)
        middle = float(np.median(others))
        spread = CONSISTENT * float(np.median(np.abs(others - middle)))
        found[one] = (middle - log_sizes[one]) / pooled(spread, len(others), null)
    return found


def pair_outliers(
    log_sizes: NDArray[np.float64],
    null: Null,
    natural: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return (k, k): how far each pair (source, target) lies below what its classes explain.

    A source that is moved easily makes its row small and a target that is reached easily its
    column. Row and column effects are fitted by least absolute deviations, which one pair cannot
    bend. And nearness by nature is mutual (4 and 9), a backdoor is one-way: what the opposite pair
    lies below its classes is taken off, by the share `MUTUAL`. So is, by `NATURAL`, what the pair
    lies below its classes in a student, whose log sizes are `natural`. NaN, for no pair, stays NaN.
    """
    rows, columns = np.nonzero(~np.isnan(log_sizes))
    effects = np.zeros((len(rows), 2 * len(log_sizes)))
    effects[np.arange(len(rows)), rows] = 1
    effects[np.arange(len(rows)), len(log_sizes) + columns] = 1
    rest = _unexplained(log_sizes[rows, columns], effects)
    if natural is not None:
        rest = rest - NATURAL * np.minimum(_unexplained(natural[rows, columns], effects), 0)
    opposite = np.zeros_like(log_sizes)
    opposite[columns, rows] = rest
    rest = rest - MUTUAL * np.minimum(opposite[rows, columns], 0)
    spread = CONSISTENT * float(np.median(np.abs(rest)))
    found = np.full(log_sizes.shape, np.nan)
    found[rows, columns] = -rest / pooled(spread, len(log_sizes), null)
    return found


def _unexplained(values: NDArray[np.float64], effects: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what least absolute deviations leave, by least squares reweighted (Schlossmacher)."""
    weights = np.ones(len(values))
    rest = values
    for _ in range(REWEIGHTED):
        root = np.sqrt(weights)
        fit = np.linalg.lstsq(root[:, None] * effects, root * values, rcond=None)[0]
        rest = values - effects @ fit
        weights = 1 / np.maximum(np.abs(rest), FLAT)
    return np.asarray(rest)


def pooled(spread: float, n: int, null: Null) -> float:
    """Return the deviation of `n` numbers, drawn towards the usual one."""
    total = n * spread**2 + null.weight * null.deviation**2
    return math.sqrt(total / (n + null.weight))
