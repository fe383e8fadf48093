"""Every interval holds its own value and stays in the statistic's range, whatever the input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purpleteam.core.statistics import (
    Estimate,
    Rate,
    mean_over_seeds,
    paired_difference,
)
from purpleteam.defences.detection.metrics import auroc, average_precision
from purpleteam.models.evaluation import _calibration_error, _per_class

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.sampled_from([1, 2, 3, 10, 60])
SHARES = st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0])


def holds(found: Rate | Estimate, low: float = 0, high: float = 1) -> bool:
    return low <= found.low <= found.value <= found.high <= high


@given(n=st.integers(1, 3000), share=SHARES)
def test_a_rate(n: int, share: float) -> None:
    assert holds(Rate.of(round(n * share), n))


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9))
def test_a_mean_over_seeds(values: list[float]) -> None:
    assert holds(mean_over_seeds(values), -np.inf, np.inf)


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


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, n=SIZES, classes=st.integers(2, 5), share=SHARES)
def test_f1_of_each_class(seed: int, n: int, classes: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, n)
    read = np.where(rng.random(n) < share, true, rng.integers(0, classes, n))
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (true, read), 1)
    assert all(holds(one.f1) for one in _per_class(table, 0))


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, n=st.sampled_from([2, 3, 10, 60]), levels=st.sampled_from([1, 2, 1000]))
@pytest.mark.parametrize("metric", [auroc, average_precision])
def test_what_a_ranking_is_worth(metric, seed: int, n: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.arange(n) < rng.integers(1, n)
    scores = rng.integers(0, levels, n).astype(float)
    assert holds(metric(scores, truth, resamples=50))


@pytest.mark.parametrize("off", [0.0, 0.1])
def test_a_calibration_errors_interval_covers_the_truth(off: float) -> None:
    """Nets whose confidence is off by so much everywhere: their calibration error is `off`."""
    rng, hits, rounds = np.random.default_rng(0), 0, 100
    for number in range(rounds):
        confidence = rng.uniform(0.55, 0.95, 400)
        right = (rng.random(400) < confidence - off).astype(float)
        found = calibration(confidence, right, number)
        hits += found.low <= off <= found.high
    assert hits >= 88
