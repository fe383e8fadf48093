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
    difference,
    mean,
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


def test_a_difference_of_two_groups_has_the_published_interval():
    found = difference(Rate.of(56, 70), Rate.of(48, 80))  # Newcombe 1998, 17:873, table II, (a)
    assert (found.value, found.n) == (pytest.approx(0.2), 150)
    assert (found.low, found.high) == (
        pytest.approx(0.0524, abs=1e-4),
        pytest.approx(0.3339, abs=1e-4),
    )


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
def test_a_mean_has_scipys_t_interval_cut_to_its_range(values):
    t = pytest.importorskip("scipy.stats").t
    found = mean_over_seeds(values, bounds=(-1e3, 1e3))
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    assert found.value == pytest.approx(np.mean(values), abs=1e-9)
    assert found.values == tuple(values)
    if found.method == "t":
        assert found.high == pytest.approx(min(1e3, found.value + half), rel=1e-8, abs=1e-9)
        assert found.low == pytest.approx(max(-1e3, found.value - half), rel=1e-8, abs=1e-9)


def test_values_that_differ_by_rounding_alone_are_alike():
    assert mean([0.3, 0.1 + 0.2], bounds=(0, 1)).method == "alike"
    assert mean([0.3, 0.3 + 1e-8], bounds=(0, 1)).method == "t"


@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_seeds_that_all_succeed_say_what_a_rate_of_as_many_says(n):
    found, rate = mean([1.0] * n, bounds=(0, 1)), Rate.of(n, n)
    assert (found.low, found.high) == (pytest.approx(rate.low), 1.0)


@pytest.mark.parametrize("n", [2, 5])
def test_values_that_are_alike_cover_the_mean_of_a_set_with_rare_others(n):
    """They are all 0.8, but for a share that is 0: for any share the interval is seldom wrong."""
    found = mean([0.8] * n, bounds=(0, 1))
    for share in np.linspace(0, 1, 50):
        all_alike = (1 - share) ** n
        assert found.low <= 0.8 * (1 - share) or all_alike <= 0.025 + 1e-12


def test_a_mean_without_a_largest_value_may_have_no_upper_end():
    found = mean([0.5], bounds=(0, math.inf))
    assert (found.low, found.high) == (pytest.approx(0.0125), math.inf)
    assert found.to_json()["high"] is None


@pytest.mark.parametrize("values", [[], [0.5]])
def test_a_mean_over_fewer_than_two_seeds_is_refused(values):
    with pytest.raises(ValueError, match="at least two"):
        mean_over_seeds(values, bounds=(0, 1))


@pytest.mark.parametrize("values", [[], [0.5, 1.5], [-0.5, 0.5], [math.nan]])
def test_a_mean_of_values_out_of_their_range_is_refused(values):
    with pytest.raises(ValueError, match="needs values from 0 to 1"):
        mean(values, bounds=(0, 1))


def test_an_estimate_reads_as_a_number_with_its_interval_and_n():
    found = Estimate(value=0.0123456, n=9, low=-0.5, high=1234.5, method="t")
    assert str(found) == "0.01235 (-0.5 to 1234, n=9)"


@pytest.mark.parametrize(
    "value",
    [
        Rate.of(3, 7),
        mean_over_seeds([0.25, 0.5, 0.125], bounds=(0, 1)),
        mean([0.5], bounds=(0, math.inf)),
        Estimate(value=0.5, n=9, low=0.25, high=0.75, method="bootstrap"),
        Counts(value=((5, 1), (0, 4)), n=10),
    ],
)
def test_a_value_comes_back_from_json(value):
    assert value_from_json(value.to_json()) == value
