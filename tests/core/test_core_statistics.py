"""Intervals against closed forms, SciPy, published tables, and their own promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purpleteam.core.statistics import (
    Counts,
    Estimate,
    Rate,
    bootstrap,
    mean_over_seeds,
    paired_difference,
    value_from_json,
)


@st.composite
def counts(draw: st.DrawFn, largest: int = 20_000) -> tuple[int, int]:
    n = draw(st.integers(1, largest))
    return draw(st.integers(0, n)), n


def verdicts(both: int, first: int, second: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Two lists of verdicts with that table."""
    pairs = (
        [(True, True)] * both
        + [(True, False)] * first
        + [(False, True)] * second
        + [(False, False)] * neither
    )
    return [one for one, _ in pairs], [other for _, other in pairs]


@given(counts())
def test_an_interval_holds_its_rate_and_lies_in_the_unit_interval(case):
    rate = Rate.of(*case)
    assert 0.0 <= rate.low <= rate.value <= rate.high <= 1.0
    assert (rate.successes, rate.n) == case


@given(counts())
def test_an_interval_agrees_with_scipy(case):
    beta = pytest.importorskip("scipy.stats").beta
    successes, n = case
    rate = Rate.of(successes, n)
    low = beta.ppf(0.025, successes, n - successes + 1) if successes else 0.0
    high = beta.ppf(0.975, successes + 1, n - successes) if successes < n else 1.0
    assert rate.low == pytest.approx(low, abs=1e-9)
    assert rate.high == pytest.approx(high, abs=1e-9)


@given(st.integers(1, 10**6))
def test_none_and_all_have_the_closed_form(n):
    bound = -math.expm1(math.log(0.025) / n)
    none, everything = Rate.of(0, n), Rate.of(n, n)
    assert (none.low, everything.high) == (0.0, 1.0)
    assert none.high == pytest.approx(bound, rel=1e-9)
    assert everything.low == pytest.approx(1 - bound, rel=1e-9)


@given(counts())
def test_one_success_more_moves_both_ends_up(case):
    successes, n = case
    if successes < n:
        fewer, more = Rate.of(successes, n), Rate.of(successes + 1, n)
        assert fewer.low < more.low
        assert fewer.high < more.high


@given(counts())
def test_failures_mirror_successes(case):
    successes, n = case
    rate, mirror = Rate.of(successes, n), Rate.of(n - successes, n)
    assert rate.low == pytest.approx(1 - mirror.high, abs=1e-12)


@pytest.mark.parametrize("n", [3, 20])
def test_a_rate_covers_the_truth_in_at_least_95_percent_of_samples(n):
    rates = [Rate.of(successes, n) for successes in range(n + 1)]
    for truth in np.linspace(0.001, 0.999, 97):
        covered = sum(
            math.comb(n, k) * truth**k * (1 - truth) ** (n - k)
            for k, rate in enumerate(rates)
            if rate.low <= truth <= rate.high
        )
        assert covered >= 0.95


@pytest.mark.parametrize("case", [(-1, 3), (4, 3), (0, 0)])
def test_a_rate_of_impossible_counts_is_refused(case):
    with pytest.raises(ValueError, match="0 <= successes <= n"):
        Rate.of(*case)


def test_a_rate_reads_as_percent_with_its_interval_and_n():
    assert str(Rate.of(893, 1000)) == "89.30% (87.22-91.15, n=1000)"


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        ((20, 12, 2, 16), 0.0562, 0.3292),  # Newcombe 1998, table II, method 10
        ((36, 12, 2, 0), 0.0569, 0.3404),  # the same; agreement below chance is not corrected
        ((1, 1, 7, 12), -0.507, -0.026),  # Fagerland et al. 2014, airway hyper-responsiveness
        ((59, 6, 16, 80), -0.1186, -0.0046),  # the same, complete response
    ],
)
def test_a_paired_difference_has_the_published_interval(table, low, high):
    first, second = verdicts(*table)
    found = paired_difference(second, first)  # they take the second from the first
    digits = len(str(low).rpartition(".")[2])
    assert (round(found.low, digits), round(found.high, digits)) == (low, high)
    assert found.value == pytest.approx((table[1] - table[2]) / sum(table))


tables = st.tuples(*[st.integers(0, 60)] * 4).filter(any)


@given(tables)
def test_a_paired_difference_changes_sign_with_its_order(table):
    first, second = verdicts(*table)
    one, other = paired_difference(first, second), paired_difference(second, first)
    assert one.value == -other.value
    assert one.low == pytest.approx(-other.high, abs=1e-12)
    assert -1 <= one.low <= one.value <= one.high <= 1


@given(tables, st.randoms(use_true_random=False))
def test_a_paired_difference_hangs_on_the_table_alone(table, random):
    pairs = list(zip(*verdicts(*table), strict=True))
    before = paired_difference(*zip(*pairs, strict=True))
    random.shuffle(pairs)
    assert paired_difference(*zip(*pairs, strict=True)) == before


@settings(max_examples=15)
@given(st.tuples(*[st.integers(1, 6)] * 4))
def test_a_paired_difference_covers_the_truth_most_of_the_time(weights):
    """Newcombe found 0.949 on average; every single table must stay near it."""
    truth = np.array(weights) / sum(weights)
    draws = np.random.default_rng(0).multinomial(50, truth, 300)
    difference = truth[2] - truth[1]
    found = [paired_difference(*verdicts(*map(int, table))) for table in draws]
    assert np.mean([one.low <= difference <= one.high for one in found]) >= 0.90


@pytest.mark.parametrize("pair", [([], []), ([True], [True, False])])
def test_a_paired_difference_needs_pairs(pair):
    with pytest.raises(ValueError, match="equal lengths"):
        paired_difference(*pair)


numbers = st.floats(-1e3, 1e3, allow_nan=False)


@given(st.lists(numbers, min_size=2, max_size=30))
def test_a_mean_over_seeds_has_scipys_t_interval(values):
    t = pytest.importorskip("scipy.stats").t
    found = mean_over_seeds(values)
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    assert found.value == pytest.approx(np.mean(values), abs=1e-9)
    assert found.high - found.value == pytest.approx(half, rel=1e-8, abs=1e-9)
    assert found.value - found.low == pytest.approx(half, rel=1e-8, abs=1e-9)
    assert found.values == tuple(values)


@pytest.mark.parametrize("values", [[], [0.5]])
def test_a_mean_over_fewer_than_two_seeds_is_refused(values):
    with pytest.raises(ValueError, match="at least two"):
        mean_over_seeds(values)


def mean(cases: np.ndarray) -> float:
    return float(cases.mean())


def test_a_bootstrap_is_a_function_of_its_seed():
    cases = np.random.default_rng(1).normal(size=60)
    assert bootstrap(mean, cases, seed=3) == bootstrap(mean, cases, seed=3)
    assert bootstrap(mean, cases, seed=3) != bootstrap(mean, cases, seed=4)


def test_a_bootstrapped_mean_is_as_wide_as_theory_says():
    cases = np.random.default_rng(2).normal(size=400)
    found = bootstrap(mean, cases, seed=0, resamples=2000)
    assert found.value == pytest.approx(cases.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * cases.std() / 20, rel=0.1)


def test_a_bootstrap_draws_whole_cases():
    cases = np.array([[value, 10 * value] for value in range(20)])
    found = bootstrap(lambda rows: float((10 * rows[:, 0] - rows[:, 1]).max()), cases, seed=0)
    assert (found.low, found.value, found.high) == (0.0, 0.0, 0.0)


def test_an_estimate_reads_as_a_number_with_its_interval_and_n():
    found = Estimate(value=0.0123456, n=9, low=-0.5, high=1234.5, method="t")
    assert str(found) == "0.01235 (-0.5 to 1234, n=9)"


@pytest.mark.parametrize(
    "value",
    [
        Rate.of(3, 7),
        mean_over_seeds([0.25, 0.5, 0.125]),
        Estimate(value=0.5, n=9, low=0.25, high=0.75, method="bootstrap"),
        Counts(value=((5, 1), (0, 4)), n=10),
    ],
)
def test_a_value_comes_back_from_json(value):
    assert value_from_json(value.to_json()) == value


def test_a_bootstrap_with_strata_draws_as_many_of_each_as_there_are():
    cases = np.array([0, 1, 1, 0, 0, 1, 0, 0])
    found = bootstrap(lambda drawn: float(drawn.sum()), cases, seed=0, strata=cases == 1)
    assert (found.low, found.value, found.high) == (3.0, 3.0, 3.0)
