"""How good a detection or a repair was: pure functions of scores, flags and labels, with intervals.

- a detector's ranking: AUROC, average precision, recall among the first n; ties count as ties
- its flags at the deployed threshold: recall, precision, false alarms, residual poisons
- all of these together, on a set whose poisons are known: `evaluate_detection`
- a repair: defence effectiveness rating (Zhu et al. 2023, arXiv:2304.11823; Wu et al. 2022,
  arXiv:2206.12654), and what it cost

NumPy alone. Every argument that holds one value per case is an array of the same length (N,).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

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


def recall(flagged: ArrayLike, poisoned: ArrayLike) -> Rate:
    """Return which share of the poisons is flagged."""
    flags, truth = _pair(_bools(flagged), _bools(poisoned))
    return Rate.of(int((flags & truth).sum()), int(truth.sum()))


def precision(flagged: ArrayLike, poisoned: ArrayLike) -> Rate | None:
    """Return which share of the flagged is poisoned; None where nothing is flagged."""
    flags, truth = _pair(_bools(flagged), _bools(poisoned))
    return Rate.of(int((flags & truth).sum()), int(flags.sum())) if flags.any() else None


def false_alarm_rate(flagged: ArrayLike, poisoned: ArrayLike | None = None) -> Rate:
    """Return which share of the clean is flagged: images of a set, or models that were scanned.

    Args:
        flagged: (N,) bool.
        poisoned: (N,) bool, the truth; by default all are clean.
    """
    flags = _bools(flagged)
    flags, truth = _pair(flags, np.zeros_like(flags) if poisoned is None else _bools(poisoned))
    return Rate.of(int((flags & ~truth).sum()), int((~truth).sum()))


def residual_poisons(flagged: ArrayLike, poisoned: ArrayLike) -> int:
    """Return how many poisons are not flagged, and stay."""
    flags, truth = _pair(_bools(flagged), _bools(poisoned))
    return int((truth & ~flags).sum())


def recall_at(scores: ArrayLike, poisoned: ArrayLike, n: int) -> Rate:
    """Return which share of the poisons is among the n highest scores.

    Where scores tie at the cut, the clean ones are taken first: the detector did not tell them
    apart, and the order of the images must not.
    """
    values, truth = _pair(_scores(scores), _bools(poisoned))
    if not 0 <= n <= len(values):
        raise ValueError(f"n must be from 0 to the {len(values)} scores, not {n}")
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


def relative_cost(cpu_seconds: float, training_cpu_seconds: float) -> float:
    """Return CPU seconds as multiples of one training of the same model."""
    if cpu_seconds < 0 or training_cpu_seconds <= 0:
        raise ValueError(
            f"seconds must be at least 0 and those of a training more, "
            f"not {cpu_seconds} and {training_cpu_seconds}"
        )
    return cpu_seconds / training_cpu_seconds


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

    def to_json(self) -> dict[str, Any]:
        """Return the fields for --json and records."""
        rates = {
            "auroc": self.auroc,
            "average_precision": self.average_precision,
            "recall": self.recall,
            "precision": self.precision,
            "false_alarm_rate": self.false_alarm_rate,
            "recall_at_count": self.recall_at_count,
        }
        values = {name: rate.to_json() if rate else None for name, rate in rates.items()}
        return values | {"residual_poisons": self.residual_poisons}


def evaluate_detection(scores: ArrayLike, flagged: ArrayLike, poisoned: ArrayLike) -> Detection:
    """Return how good a detector was on one set.

    Args:
        scores: (N,), higher is more suspicious.
        flagged: what the detector's own threshold flags: (N,) bool, or the places of those.
        poisoned: (N,) bool, the truth.

    Raises:
        ValueError: lengths differ, scores are not finite, or all is poisoned.
    """
    truth = np.asarray(poisoned)
    flags = np.asarray(flagged)
    if flags.dtype != np.bool_:
        places = flags.astype(np.int64)  # no place at all is an empty array of floats
        flags = np.zeros(len(truth), np.bool_)
        flags[places] = True
    some, both = bool(truth.any()), bool(truth.any() and not truth.all())
    return Detection(
        auroc=auroc(scores, truth) if both else None,
        average_precision=average_precision(scores, truth) if both else None,
        recall=recall(flags, truth) if some else None,
        precision=precision(flags, truth),
        false_alarm_rate=false_alarm_rate(flags, truth),
        recall_at_count=recall_at(scores, truth, int(truth.sum())) if some else None,
        residual_poisons=residual_poisons(flags, truth),
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
    values, truth = _pair(_scores(scores), _bools(poisoned))
    if truth.all() or not truth.any():
        raise ValueError("a ranking needs at least one poisoned and one clean case")
    ranks = np.unique(values, return_inverse=True)[1]  # equal scores, equal rank
    size = int(ranks.max()) + 1
    return np.bincount(ranks[truth], minlength=size), np.bincount(ranks[~truth], minlength=size)


def _scores(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("scores must be finite")
    return values


def _bools(flags: ArrayLike) -> NDArray[np.bool_]:
    values = np.asarray(flags)
    if values.dtype != np.bool_:
        raise ValueError(f"flags must be one bool per case, not {values.dtype} {values.shape}")
    return values


def _pair(first: NDArray[Any], second: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"lengths must be equal, not {first.shape} and {second.shape}")
    return first, second
