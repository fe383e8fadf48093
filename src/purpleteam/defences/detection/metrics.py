"""How good a detection or a repair was: functions of scores, flags and labels (N,). NumPy alone."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from purpleteam.core.arrays import Bools, Floats, Ints
from purpleteam.core.statistics import Estimate, Rate, Z, fraction_interval


def auroc(scores: ArrayLike, poisoned: ArrayLike) -> Estimate:
    """Return the area under the ROC curve: how often a poison scores above a clean one.

    A tie counts half. The interval is the wider, at each end, of DeLong's (1988,
    doi:10.2307/2531595) on the logit scale and Newcombe's method 5 (2006, doi:10.1002/sim.2324),
    which holds for few cases. Where a kind shows no spread, as in a perfect ranking, the first is
    that of a rate of as many cases as the rarer kind has: the variance is at most that (Birnbaum
    and Klose 1957, Annals of Mathematical Statistics 28:933). ValueError where a kind is missing.
    """
    poisons, clean = _at_each_rank(scores, poisoned)
    m, n = int(poisons.sum()), int(clean.sum())
    above_clean = (clean.cumsum() - clean / 2) / n  # of each rank: share of clean ones below it
    below_poison = 1 - (poisons.cumsum() - poisons / 2) / m
    area = float(poisons @ above_clean / m)
    spread = []  # variances of both means; 0 where the cases show none
    for values, counts, size in ((above_clean, poisons, m), (below_poison, clean, n)):
        squares = counts @ (values - counts @ values / size) ** 2
        spread.append(float(squares / max(size - 1, 1) / size))
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

    The interval is that of a rate of as many cases as the rarer kind has (Boyd et al. 2013,
    doi:10.1007/978-3-642-40994-3_29).
    """
    poisons, clean = (counts[::-1] for counts in _at_each_rank(scores, poisoned))
    m, n = int(poisons.sum()), int(clean.sum())
    flagged = (poisons + clean).cumsum()  # highest score first
    value = float((poisons * poisons.cumsum() / flagged).sum() / m)
    fewer = min(m, n)
    low, high = fraction_interval(fewer * value, fewer)
    return Estimate(value=value, n=m + n, low=low, high=high, method="binomial")


def defence_effectiveness(success_fall: float, accuracy_rise: float) -> float:
    """Return the defence effectiveness rating (DER) of a repair, in [0, 1].

    (max(0, fall of attack success) - max(0, fall of clean accuracy) + 1) / 2: 1 is a backdoor
    gone at no cost, 1/2 is nothing done, 0 is an accuracy thrown away for nothing. Both are
    differences of rates, from -1 to 1 (Zhu et al. 2023, arXiv:2304.11823; Wu et al. 2022,
    arXiv:2206.12654).
    """
    for change in (success_fall, accuracy_rise):
        if not -1 <= change <= 1:
            raise ValueError(f"differences of rates must be from -1 to 1, not {change}")
    return (max(0.0, success_fall) - max(0.0, -accuracy_rise) + 1) / 2


@dataclass(frozen=True, kw_only=True)
class Detection:
    """What a detector did on one set; what needs poisons, or both kinds, is None without."""

    auroc: Estimate | None
    average_precision: Estimate | None
    recall: Rate | None  # poisons that were flagged, at the deployed threshold
    precision: Rate | None  # flagged images that are poisons; None where nothing was flagged
    false_alarm_rate: Rate  # clean images that were flagged
    residual_poisons: int  # poisons that were not flagged, and stay in the set


def evaluate_detection(scores: ArrayLike, flagged: ArrayLike, poisoned: ArrayLike) -> Detection:
    """Return how good a detector was on a set, of which (N,) bool are truly poisoned.

    Scores (N,) are finite, higher is more suspicious; flagged are (N,) bool, or places. ValueError
    where lengths differ, scores are not finite, or all is poisoned.
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
        residual_poisons=poisons - hits,
    )


def _newcombe_low(area: float, m: int, n: int) -> float:
    """Return the least true area whose deviation allows this one, by bisection."""
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


def _at_each_rank(scores: ArrayLike, poisoned: ArrayLike) -> tuple[Ints, Ints]:
    """Return how many poisons and how many clean cases have each score, the lowest first."""
    values, truth = _cases(scores, poisoned)
    if truth.all() or not truth.any():
        raise ValueError("a ranking needs at least one poisoned and one clean case")
    ranks = np.unique(values, return_inverse=True)[1]  # equal scores, equal rank
    size = int(ranks.max()) + 1
    return np.bincount(ranks[truth], minlength=size), np.bincount(ranks[~truth], minlength=size)


def _cases(scores: ArrayLike, poisoned: ArrayLike) -> tuple[Floats, Bools]:
    values, truth = np.asarray(scores, np.float64), np.asarray(poisoned)
    if not np.isfinite(values).all():
        raise ValueError("scores must be finite")
    if truth.dtype != np.bool_ or truth.ndim != 1:
        raise ValueError(f"flags must be one bool per case, not {truth.dtype} {truth.shape}")
    if values.shape != truth.shape:
        raise ValueError(f"lengths must be equal, not {values.shape} and {truth.shape}")
    return values, truth
