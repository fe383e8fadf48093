"""Every interval holds its value, stays in the statistic's range, and never has a width of 0."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from purpleteam.core.statistics import Estimate, Rate, mean, mean_over_seeds, paired_difference
from purpleteam.defences.detection.metrics import auroc, average_precision
from purpleteam.models.inference import _calibration_error, _f1

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.sampled_from([1, 2, 3, 10, 60])
SHARES = st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0])
BOUNDS = st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (0.0, math.inf)])


def holds(found: Rate | Estimate, low: float = 0, high: float = 1) -> bool:
    whole = low <= found.low <= found.value <= found.high <= high
    return whole and found.high - found.low > 1e-12


@given(n=st.integers(1, 3000), share=SHARES)
def test_a_rate(n: int, share: float) -> None:
    assert holds(Rate.of(round(n * share), n))


@example(bounds=(0.0, 1.0), values=[0.0, 3e-93])
@given(bounds=BOUNDS, values=st.lists(st.floats(0, 1) | SHARES, min_size=1, max_size=9))
def test_a_mean(bounds: tuple[float, float], values: list[float]) -> None:
    assert holds(mean(values, bounds=bounds), *bounds)


@given(rates=st.lists(SHARES, min_size=2, max_size=9))
def test_a_mean_over_trainings_such_as_a_point_of_a_poison_curve(rates: list[float]) -> None:
    assert holds(mean_over_seeds(rates, bounds=(0, 1)))


@given(seed=SEEDS, n=SIZES, first=SHARES, second=SHARES)
def test_a_difference_of_paired_rates(seed: int, n: int, first: float, second: float) -> None:
    a, b = np.random.default_rng(seed).random((2, n))
    assert holds(paired_difference((a < first).tolist(), (b < second).tolist()), -1, 1)


def calibration(confidence: np.ndarray, right: np.ndarray, seed: int = 0) -> Estimate:
    return _calibration_error(confidence, right.astype(bool), seed)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, n=SIZES, share=SHARES, sure=st.booleans())
def test_a_calibration_error(seed: int, n: int, share: float, sure: bool) -> None:
    rng = np.random.default_rng(seed)
    confidence = np.ones(n) if sure else rng.random(n)
    assert holds(calibration(confidence, (rng.random(n) < share).astype(float)))


@given(cases=st.integers(0, 3000), share=SHARES)
def test_f1_of_a_class(cases: int, share: float) -> None:
    assert holds(_f1(round(cases * share), cases))


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, n=st.sampled_from([2, 3, 10, 60]), levels=st.sampled_from([1, 2, 1000]))
@pytest.mark.parametrize("metric", [auroc, average_precision])
@pytest.mark.parametrize("order", ["any", "perfect", "reversed"])
def test_what_a_ranking_is_worth(metric, order: str, seed: int, n: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.arange(n) < rng.integers(1, n)
    scores = {
        "any": rng.integers(0, levels, n).astype(float),
        "perfect": truth.astype(float),
        "reversed": -truth.astype(float),
    }[order]
    assert holds(metric(scores, truth))


def ranked(metric, share: float, n: int) -> Estimate:
    """A ranking of as many poisons as clean cases, of which a share stands above all of them."""
    truth = np.arange(2 * n) < n
    return metric(np.where(truth, np.where(np.arange(2 * n) < share * n, 2.0, 0.0), 1.0), truth)


EACH = {
    "rate": lambda share, n: Rate.of(round(share * n), n),
    "mean of values alike": lambda share, n: mean([share] * n, bounds=(0, 1)),
    "difference of paired rates": lambda share, n: paired_difference(
        [False] * n, (np.arange(n) < share * n).tolist()
    ),
    "calibration error": lambda share, n: calibration(np.ones(n), np.arange(n) >= share * n),
    "f1": lambda share, n: _f1(round(share * n), n),
    "auroc": lambda share, n: ranked(auroc, share, n),
    "average precision": lambda share, n: ranked(average_precision, share, n),
}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", EACH)
def test_four_times_the_cases_narrow_an_interval_and_few_leave_it_wide(
    name: str, share: float
) -> None:
    widths = []
    for n in (2, 8, 32, 128):
        found = EACH[name](share, n)
        widths.append(found.high - found.low)
    assert all(wide > 1.2 * narrow for wide, narrow in itertools.pairwise(widths))
    assert widths[0] > 0.4 and widths[-1] < 0.25


@pytest.mark.parametrize("name", EACH)
def test_a_higher_share_never_lowers_an_end(name: str) -> None:
    found = [EACH[name](hits / 16, 16) for hits in range(17)]
    for less, more in itertools.pairwise(found):
        slack = 0.05 if name == "calibration error" else 1e-9  # its ends are drawn
        assert less.low <= more.low + slack and less.high <= more.high + slack


@pytest.mark.parametrize("off", [0.0, 0.1])
def test_a_calibration_errors_interval_covers_the_truth(off: float) -> None:
    """Nets whose confidence is off by so much everywhere: their calibration error is `off`."""
    rng, hits, rounds = np.random.default_rng(0), 0, 50
    for number in range(rounds):
        confidence = rng.uniform(0.55, 0.95, 400)
        right = (rng.random(400) < confidence - off).astype(float)
        found = calibration(confidence, right, number)
        hits += found.low <= off <= found.high
    assert hits >= 44
