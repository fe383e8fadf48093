"""Counts and estimates with their 95 % intervals; pure Python, since the base has no SciPy.

A count out of n is a `Rate` with a Clopper-Pearson interval (1934, doi:10.1093/biomet/26.4.404).
What is no count is an `Estimate`: a mean with a t interval, cut to its range; a difference of two
paired rates after Newcombe (1998, Statistics in Medicine 17:2635, method 10), or of two that are
not paired (17:873, method 10). Every interval holds its value, lies in the range of its statistic,
and none has a width of 0: that no case differed is no proof that none will.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Self

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2
Z = 1.959963984540054  # deviations from the mean within which so much of a normal distribution lies
ALIKE = 1e-9  # of the largest value, or of 1: a spread that is no more is rounding


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A fraction in [0, 1] of `n` cases, with its 95 % Clopper-Pearson interval."""

    value: float
    n: int
    low: float
    high: float
    method: str = "clopper-pearson"

    @classmethod
    def of(cls, successes: int, n: int) -> Self:
        """Return the rate of `successes` out of `n`; covers the truth in >= 95 % of samples."""
        if not 0 <= successes <= n or n == 0:
            raise ValueError(f"a rate needs 0 <= successes <= n and n > 0, not {successes} of {n}")
        low, high = fraction_interval(successes, n)
        return cls(value=successes / n, n=n, low=low, high=high)

    @property
    def successes(self) -> int:
        """How many of the `n` cases counted."""
        return round(self.value * self.n)

    def to_json(self) -> dict[str, Any]:
        """Return the five fields that every rate has in --json and in records."""
        return asdict(self)

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
    """Infinite, and null in JSON, where the statistic has no upper end and the cases show none."""
    method: str
    values: tuple[float, ...] = ()  # one value per seed where several were run; never pooled

    def to_json(self) -> dict[str, Any]:
        """Return the fields for --json and records; `values` only where there are several."""
        fields = asdict(self) | {"high": self.high if math.isfinite(self.high) else None}
        values = fields.pop("values")
        return fields | ({"values": list(values)} if values else {})

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
        return {**vars(self), "value": [list(row) for row in self.value]}


Value = Rate | Estimate | Counts


def value_from_json(fields: Mapping[str, Any]) -> Value:
    """Return the value that `to_json` wrote."""
    if fields["method"] == "counts":
        rows = tuple(tuple(int(cell) for cell in row) for row in fields["value"])
        return Counts(value=rows, n=fields["n"])
    if fields["method"] == "clopper-pearson":
        return Rate(**fields)
    high = math.inf if fields["high"] is None else fields["high"]
    return Estimate(**{**fields, "high": high, "values": tuple(fields.get("values", ()))})


def fraction_interval(successes: float, n: int) -> tuple[float, float]:
    """Return the Clopper-Pearson interval of `successes` out of `n`.

    A mean of n numbers in [0, 1] varies no more than a rate does, so n times that mean may stand
    for the successes.
    """
    low = 0.0 if successes <= 0 else _beta_quantile(TAIL, successes, n - successes + 1)
    high = 1.0 if successes >= n else _beta_quantile(1 - TAIL, successes + 1, n - successes)
    return low, high


def mean(values: Sequence[float], *, bounds: tuple[float, float]) -> Estimate:
    """Return the mean of the values with its t interval, cut to the range of such values.

    Where all are alike, as a single one is, nothing is known of their spread. But whatever the
    distribution, all n reach v in at least 2.5 % of samples only if the mean is at least
    low + (v - low) 0.025^(1/n). At the edge of the range this is the Clopper-Pearson bound.
    """
    n, (least, largest) = len(values), bounds
    if n == 0 or not least <= min(values) <= max(values) <= largest:
        raise ValueError(f"a mean needs values from {least:g} to {largest:g}, not {list(values)}")
    centre = min(max(values), max(min(values), math.fsum(values) / n))  # rounding leaves them
    half = 0.0
    if n > 1:
        spread = math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (n - 1))
        half = _t_quantile(1 - TAIL, n - 1) * spread / math.sqrt(n)
    if half > ALIKE * max(1.0, abs(min(values)), abs(max(values))):
        low, high = max(least, centre - half), min(largest, centre + half)
        return Estimate(value=centre, n=n, low=low, high=high, method="t")
    share = TAIL ** (1 / n)
    low = least + (min(values) - least) * share
    high = max(values) + (largest - max(values)) * (1 - share)
    return Estimate(value=centre, n=n, low=low, high=high, method="alike")


def mean_over_seeds(values: Sequence[float], *, bounds: tuple[float, float]) -> Estimate:
    """Return the mean of one value per seed, as `mean` does; needs two seeds or more."""
    if len(values) < 2:
        raise ValueError(f"a mean over seeds needs at least two values, not {len(values)}")
    return replace(mean(values, bounds=bounds), values=tuple(values))


def paired_difference(first: Sequence[bool], second: Sequence[bool]) -> Estimate:
    """Return rate(second) - rate(first) over the same cases, interval after Newcombe 1998."""
    n = len(first)
    if n != len(second) or n == 0:
        raise ValueError(f"paired verdicts need equal lengths, not {n} and {len(second)}")
    both = sum(1 for a, b in zip(first, second, strict=True) if a and b)
    only_first = sum(map(bool, first)) - both
    only_second = sum(map(bool, second)) - both
    neither = n - both - only_first - only_second
    p_first, p_second = (both + only_first) / n, (both + only_second) / n
    (low_1, high_1), (low_2, high_2) = _wilson(p_first, n), _wilson(p_second, n)
    sums = (both + only_first, only_second + neither, both + only_second, only_first + neither)
    margins = math.prod(sums)
    agreement: float = both * neither - only_first * only_second
    if agreement > 0:  # the continuity correction that makes his method 8 his method 10
        agreement = max(0.0, agreement - n / 2)
    phi = agreement / math.sqrt(margins) if margins else 0.0
    down = _paired_half(p_second - low_2, high_1 - p_first, phi)
    up = _paired_half(high_2 - p_second, p_first - low_1, phi)
    value = (only_second - only_first) / n
    low, high = max(-1.0, value - down), min(1.0, value + up)  # rounding alone goes beyond
    return Estimate(value=value, n=n, low=low, high=high, method="newcombe-paired")


def difference(first: Rate, second: Rate) -> Estimate:
    """Return first - second, rates over different cases; interval after Newcombe 1998.

    His method 10 for two groups (Statistics in Medicine 17:873): Wilson's intervals, squared apart.
    """
    (low_1, high_1), (low_2, high_2) = (
        _wilson(first.value, first.n),
        _wilson(second.value, second.n),
    )
    value = first.value - second.value
    low = value - math.hypot(first.value - low_1, high_2 - second.value)
    high = value + math.hypot(high_1 - first.value, second.value - low_2)
    low, high = max(-1.0, low), min(1.0, high)
    n = first.n + second.n
    return Estimate(value=value, n=n, low=low, high=high, method="newcombe-unpaired")


def _wilson(p: float, n: int) -> tuple[float, float]:
    centre = p + Z * Z / (2 * n)
    half = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return (centre - half) / (1 + Z * Z / n), (centre + half) / (1 + Z * Z / n)


def _paired_half(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))


def _t_quantile(p: float, degrees: int) -> float:
    x = _beta_quantile(2 * (1 - p), degrees / 2, 0.5)
    return math.sqrt(degrees * (1 - x) / x)


@lru_cache(maxsize=1024)
def _beta_quantile(p: float, a: float, b: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        if middle in (low, high):  # they are neighbours among the floats
            break
        low, high = (middle, high) if _beta_cdf(middle, a, b) < p else (low, middle)
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
        term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        if i % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)) if m else 1.0
        d = 1 + term * d
        d = 1 / (d if abs(d) > tiny else tiny)
        c = 1 + term / c
        c = c if abs(c) > tiny else tiny
        fraction *= c * d
        if abs(1 - c * d) < 1e-15:
            break
    return front * (fraction - 1)


def span(counts: Sequence[int]) -> str:
    """Return how many each has of several."""
    low, high = min(counts), max(counts)
    return f"{low} each" if low == high else f"{low} to {high} each"
