"""Counts and estimates with their 95 % intervals; pure Python, since the base has no SciPy.

- A count out of n is a `Rate` with a Clopper-Pearson interval (Clopper and Pearson 1934).
- What is no count is an `Estimate`: a mean over seeds with a t interval, a difference of two
  paired rates after Newcombe (1998, Statistics in Medicine 17:2635, method 10), a bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Counts",
    "Estimate",
    "Rate",
    "Value",
    "bootstrap",
    "mean_over_seeds",
    "of_draws",
    "paired_difference",
    "value_from_json",
]

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A fraction in [0, 1] of `n` cases, with its 95 % Clopper-Pearson interval."""

    value: float
    n: int
    low: float
    high: float
    method: str = "clopper-pearson"

    @classmethod
    def of(cls, successes: int, n: int) -> Rate:
        """Return the rate of `successes` out of `n`; covers the truth in >= 95 % of samples."""
        if not 0 <= successes <= n or n == 0:
            raise ValueError(f"a rate needs 0 <= successes <= n and n > 0, not {successes} of {n}")
        tail = (1 - CONFIDENCE) / 2
        low = 0.0 if successes == 0 else _beta_quantile(tail, successes, n - successes + 1)
        high = 1.0 if successes == n else _beta_quantile(1 - tail, successes + 1, n - successes)
        return cls(value=successes / n, n=n, low=low, high=high)

    @property
    def successes(self) -> int:
        """How many of the `n` cases counted."""
        return round(self.value * self.n)

    def to_json(self) -> dict[str, Any]:
        """Return the five fields that every rate has in --json and in records."""
        return {
            "value": self.value,
            "n": self.n,
            "low": self.low,
            "high": self.high,
            "method": self.method,
        }

    def __str__(self) -> str:
        percent = [100 * number for number in (self.value, self.low, self.high)]
        return "{:.2f}% ({:.2f}-{:.2f}, n={})".format(*percent, self.n)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number that is no count, with its 95 % interval and how that was found."""

    value: float
    n: int
    low: float
    high: float
    method: str
    values: tuple[float, ...] = ()
    """One value per seed where several were run; never pooled."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields for --json and records; `values` only where there are several."""
        fields = {
            "value": self.value,
            "n": self.n,
            "low": self.low,
            "high": self.high,
            "method": self.method,
        }
        return fields | ({"values": list(self.values)} if self.values else {})

    def __str__(self) -> str:
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g}, n={self.n})"


@dataclass(frozen=True, kw_only=True)
class Counts:
    """A table of counts, such as a confusion matrix: rows are true, columns predicted."""

    value: tuple[tuple[int, ...], ...]
    n: int
    method: str = "counts"

    def to_json(self) -> dict[str, Any]:
        """Return the table with its total."""
        return {"value": [list(row) for row in self.value], "n": self.n, "method": self.method}


Value = Rate | Estimate | Counts


def value_from_json(fields: Mapping[str, Any]) -> Value:
    """Return the value that `to_json` wrote."""
    if fields["method"] == "counts":
        rows = tuple(tuple(int(cell) for cell in row) for row in fields["value"])
        return Counts(value=rows, n=fields["n"])
    if fields["method"] == "clopper-pearson":
        return Rate(**fields)
    return Estimate(**{**fields, "values": tuple(fields.get("values", ()))})


def mean_over_seeds(values: Sequence[float]) -> Estimate:
    """Return the mean of one value per seed with its t interval; needs two seeds or more."""
    n = len(values)
    if n < 2:
        raise ValueError(f"a mean over seeds needs at least two values, not {n}")
    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = _t_quantile(1 - (1 - CONFIDENCE) / 2, n - 1) * spread / math.sqrt(n)
    return Estimate(
        value=mean, n=n, low=mean - half, high=mean + half, method="t", values=tuple(values)
    )


def paired_difference(first: Sequence[bool], second: Sequence[bool]) -> Estimate:
    """Return rate(second) - rate(first) over the same cases, interval after Newcombe 1998.

    Args:
        first: one verdict per case.
        second: the other verdict on the same cases, in the same order.
    """
    n = len(first)
    if n != len(second) or n == 0:
        raise ValueError(f"paired verdicts need equal lengths, not {n} and {len(second)}")
    both = sum(1 for a, b in zip(first, second, strict=True) if a and b)
    only_first = sum(map(bool, first)) - both
    only_second = sum(map(bool, second)) - both
    neither = n - both - only_first - only_second
    p_first, p_second = (both + only_first) / n, (both + only_second) / n
    (low_1, high_1), (low_2, high_2) = _wilson(p_first, n), _wilson(p_second, n)
    margins = math.prod(
        (both + only_first, only_second + neither, both + only_second, only_first + neither)
    )
    agreement: float = both * neither - only_first * only_second
    if agreement > 0:  # the continuity correction that makes his method 8 his method 10
        agreement = max(0.0, agreement - n / 2)
    phi = agreement / math.sqrt(margins) if margins else 0.0
    down = _paired_half(p_second - low_2, high_1 - p_first, phi)
    up = _paired_half(high_2 - p_second, p_first - low_1, phi)
    value = (only_second - only_first) / n
    low, high = max(-1.0, value - down), min(1.0, value + up)  # rounding alone goes beyond
    return Estimate(value=value, n=n, low=low, high=high, method="newcombe-paired")


def bootstrap(
    statistic: Callable[[Any], float],
    cases: Any,
    *,
    seed: int,
    resamples: int = 1000,
    strata: Any = None,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """Return `statistic(cases)` with a bootstrap interval (Efron 1979).

    Args:
        statistic: maps an array of cases to a number.
        cases: NumPy array, one case per row.
        seed: the resampling is a pure function of it.
        resamples: how many times the cases are drawn anew.
        strata: one value per case; as many are drawn of each value as there are (by default the
            cases are all alike).
        bounds: the range of the statistic.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    n = len(cases)
    kinds = np.zeros(n, np.int64) if strata is None else np.asarray(strata)
    groups = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]

    def drawn() -> Any:
        return np.concatenate([one[rng.integers(0, len(one), len(one))] for one in groups])

    draws = [statistic(cases[drawn()]) for _ in range(resamples)]
    return of_draws(float(statistic(cases)), draws, n, bounds=bounds)


def of_draws(
    value: float,
    draws: Any,
    n: int,
    *,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """Return a value with the percentile interval of its bootstrap draws; it holds the value.

    For statistics without much bias: where all draws lie on one side of the value, another
    interval is wanted, as a calibration error has one.

    Args:
        value: the statistic of the cases.
        draws: the statistic of cases that were drawn anew, one number each.
        n: how many cases.
        bounds: the range of the statistic, which the interval does not leave.
    """
    import numpy as np

    low, high = map(float, np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]))
    return Estimate(
        value=value,
        n=n,
        low=min(value, max(low, bounds[0])),
        high=max(value, min(high, bounds[1])),
        method="bootstrap",
    )


def _wilson(p: float, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)


def _paired_half(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))


def _t_quantile(p: float, degrees: int) -> float:
    x = _beta_quantile(2 * (1 - p), degrees / 2, 0.5)
    return math.sqrt(degrees * (1 - x) / x)


def _beta_quantile(p: float, a: float, b: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        if _beta_cdf(middle, a, b) < p:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _beta_cdf(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta by its continued fraction (Lentz 1976)."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _beta_cdf(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(log_front + a * math.log(x) + b * math.log1p(-x)) / a
    tiny = 1e-300
    c, d, fraction = 1.0, 0.0, 1.0
    for i in range(1000):
        m = i // 2
        if i == 0:
            term = 1.0
        elif i % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 + term * d
        d = 1 / (d if abs(d) > tiny else tiny)
        c = 1 + term / c
        c = c if abs(c) > tiny else tiny
        fraction *= c * d
        if abs(1 - c * d) < 1e-15:
            break
    return front * (fraction - 1)
