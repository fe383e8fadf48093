"""How good a detection or a repair was: pure functions of scores, flags and labels, with intervals.

- a detector's ranking: AUROC, average precision, recall among the first n; ties count as ties
- its flags at the deployed threshold: recall, precision, false alarms, residual poisons
- all of these together, on a set whose poisons are known: `evaluate_detection`
- a repair: defence effectiveness rating (Zhu et al. 2023, arXiv:2304.11823; Wu et al. 2022,
  arXiv:2206.12654)

NumPy alone. Every argument that holds one value per case is an array of the same length (N,).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from purpleteam.core.statistics import Estimate, Rate, Z, fraction_interval


def auroc(scores: ArrayLike, poisoned: ArrayLike) -> Estimate:
    """Return the area under the ROC curve: how often a poison scores above a clean one.

    A tie counts half. The interval is the wider, at each end, of two: that of DeLong et al. (1988,
    doi:10.2307/2531595) on the logit scale, which knows how the scores are spread, and method 5 of
    Newcombe (2006, doi:10.1002/sim.2324), which needs no spread and so holds for few cases. Where
    poisons or clean cases show no spread, as in a perfect ranking, the first is that of a rate of
    as many cases as the smaller kind has: the variance is at most that (Birnbaum and Klose 1957,
    Annals of Mathematical Statistics 28:933).

    Raises:
        ValueError: scores are not finite, lengths differ, or one of the two kinds is missing.
    """
    poisons, clean = _at_each_rank(scores, poisoned)
    m, n = int(poisons.sum()), int(clean.sum())
    above_clean = (clean.cumsum() - clean / 2) / n  # of each rank: share of clean ones below it
    below_poison = 1 - (poisons.cumsum() - poisons / 2) / m
    area = float(poisons @ above_clean / m)
    spread = [_variance(above_clean, poisons), _variance(below_poison, clean)]
    if min(spread) > 0:
        logit = math.log(area / (1 - area))
        half = Z * math.sqrt(sum(spread)) / (area * (1 - area))
        low, high = (1 / (1 + math.exp(-logit - side)) for side in (-half, half))
    else:
        low, high = fraction_interval(min(m, n) * area, min(m, n))
    low = max(0.0, min(low, _newcombe_low(area, m, n)))
    high = min(1.0, max(high, 1 - _newcombe_low(1 - area, m, n)))
    return Estimate(value=area, n=m + n, low=low, high=high, method="delong-newcombe")


def average_precision(scores: ArrayLike, poisoned: ArrayLike) -> Estimate:
    """Return the mean of the precision at each poison's score, all that tie with it included.

    The interval is that of a rate of as many cases as there are poisons (Boyd et al. 2013,
    doi:10.1007/978-3-642-40994-3_29), or clean ones where they are fewer.

    Raises:
        ValueError: scores are not finite, lengths differ, or one of the two kinds is missing.
    """
    poisons, clean = (counts[::-1] for counts in _at_each_rank(scores, poisoned))
    m, n = int(poisons.sum()), int(clean.sum())
    flagged = (poisons + clean).cumsum()  # highest score first
    value = float((poisons * poisons.cumsum() / flagged).sum() / m)
    fewer = min(m, n)
    low, high = fraction_interval(fewer * value, fewer)
    return Estimate(value=value, n=m + n, low=low, high=high, method="binomial")


def recall_at(scores: ArrayLike, poisoned: ArrayLike, n: int) -> Rate:
    """Return which share of the poisons is among the n highest scores.

    Where scores tie at the cut, the clean ones are taken first: the detector did not tell them
    apart, and the order of the images must not.
    """
    values, truth = _cases(scores, poisoned)
    order = np.lexsort((truth, -values))  # by falling score, then clean before poisoned
    return Rate.of(int(truth[order[:n]].sum()), int(truth.sum()))


def defence_effectiveness(
    *, success_before: float, success_after: float, accuracy_before: float, accuracy_after: float
) -> float:
    """Return the defence effectiveness rating (DER) of a repair, in [0, 1].

    (max(0, fall of attack success) - max(0, fall of clean accuracy) + 1) / 2: 1 is a backdoor
    gone at no cost, 1/2 is nothing done, 0 is an accuracy thrown away for nothing.

    Raises:
        ValueError: a rate is outside [0, 1].
    """
    rates = (success_before, success_after, accuracy_before, accuracy_after)
    if not all(0 <= rate <= 1 for rate in rates):
        raise ValueError(f"rates must be from 0 to 1, not {rates}")
    gained = max(0.0, success_before - success_after)
    lost = max(0.0, accuracy_before - accuracy_after)
    return (gained - lost + 1) / 2


@dataclass(frozen=True, kw_only=True)
class Detection:
    """What a detector did on one set whose poisons are known.

    What needs poisons is None on a clean set, where the false alarms are all there is to see.
    """

    auroc: Estimate | None
    average_precision: Estimate | None
    recall: Rate | None
    """Poisons that were flagged, at the deployed threshold."""
    precision: Rate | None
    """Flagged images that are poisons; None where nothing was flagged."""
    false_alarm_rate: Rate
    """Clean images that were flagged."""
    recall_at_count: Rate | None
    """Poisons among as many of the highest scores as there are poisons."""
    residual_poisons: int
    """Poisons that were not flagged, and stay in the set."""


def evaluate_detection(scores: ArrayLike, flagged: ArrayLike, poisoned: ArrayLike) -> Detection:
    """Return how good a detector was on one set.

    Args:
        scores: (N,), higher is more suspicious.
        flagged: what the detector's own threshold flags: (N,) bool, or the places of those.
        poisoned: (N,) bool, the truth.

    Raises:
        ValueError: lengths differ, scores are not finite, or all is poisoned.
    """
    flags = np.asarray(flagged)
    if flags.dtype != np.bool_:
        places = flags.astype(np.int64)  # no place at all is an empty array of floats
        flags = np.zeros(len(np.asarray(poisoned)), np.bool_)
        flags[places] = True
    values, truth = _cases(scores, poisoned)
    if flags.shape != truth.shape:
        raise ValueError(f"lengths must be equal, not {flags.shape} and {truth.shape}")
    poisons, clean, hits = int(truth.sum()), int((~truth).sum()), int((flags & truth).sum())
    return Detection(
        auroc=auroc(values, truth) if poisons and clean else None,
        average_precision=average_precision(values, truth) if poisons and clean else None,
        recall=Rate.of(hits, poisons) if poisons else None,
        precision=Rate.of(hits, int(flags.sum())) if flags.any() else None,
        false_alarm_rate=Rate.of(int((flags & ~truth).sum()), clean),
        recall_at_count=recall_at(values, truth, poisons) if poisons else None,
        residual_poisons=poisons - hits,
    )


def _variance(values: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    """Return the variance of the mean of values that occur so many times; 0 where it shows none."""
    n = counts.sum()
    return float(counts @ (values - counts @ values / n) ** 2 / max(n - 1, 1) / n)


def _newcombe_low(area: float, m: int, n: int) -> float:
    """Return the least area from which this one is no further than its deviation there allows."""
    others = (m + n) / 2 - 1
    low, high = 0.0, area
    for _ in range(60):
        middle = (low + high) / 2
        shape = 1 + others * ((1 - middle) / (2 - middle) + middle / (1 + middle))
        if area - middle > Z * math.sqrt(middle * (1 - middle) * shape / (m * n)):
            low = middle
        else:
            high = middle
    return low


def _at_each_rank(
    scores: ArrayLike, poisoned: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many poisons and how many clean cases have each score, the lowest first."""
    values, truth = _cases(scores, poisoned)
    if truth.all() or not truth.any():
        raise ValueError("a ranking needs at least one poisoned and one clean case")
    ranks = np.unique(values, return_inverse=True)[1]  # equal scores, equal rank
    size = int(ranks.max()) + 1
    return np.bincount(ranks[truth], minlength=size), np.bincount(ranks[~truth], minlength=size)


def _cases(scores: ArrayLike, poisoned: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, truth = np.asarray(scores, np.float64), np.asarray(poisoned)
    if not np.isfinite(values).all():
        raise ValueError("scores must be finite")
    if truth.dtype != np.bool_ or truth.ndim != 1:
        raise ValueError(f"flags must be one bool per case, not {truth.dtype} {truth.shape}")
    if values.shape != truth.shape:
        raise ValueError(f"lengths must be equal, not {values.shape} and {truth.shape}")
    return values, truth
