"""Metrics of detection and repair, each beside the same thing counted one by one."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from purpleteam.defences.detection.metrics import (
    _newcombe_low,
    auroc,
    average_precision,
    defence_effectiveness,
    evaluate_detection,
)

CASES = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=25).filter(
    lambda cases: {truth for _, truth in cases} == {False, True}
)
"""Scores with many ties, and the truth, of both kinds."""
RATE = st.floats(0, 1)


def split(cases: list[tuple[int, bool]]) -> tuple[list[int], list[bool]]:
    scores, truth = zip(*cases)
    return list(scores), list(truth)


def pairwise(cases: list[tuple[int, bool]]) -> float:
    """Every poison against every clean one: 1 above, 1/2 beside."""
    duels = [
        (score > other) + (score == other) / 2
        for (score, bad), (other, good) in itertools.product(cases, cases)
        if bad and not good
    ]
    return sum(duels) / len(duels)


def precision_at_each_poison(cases: list[tuple[int, bool]]) -> float:
    """For each poison: of all that score as high as it or higher, how many are poisons."""
    shares = []
    for score in (score for score, bad in cases if bad):
        above = [bad for other, bad in cases if other >= score]
        shares.append(sum(above) / len(above))
    return sum(shares) / len(shares)


@given(CASES)
def test_auroc_is_the_share_of_pairs_in_the_right_order(cases: list[tuple[int, bool]]) -> None:
    assert auroc(*split(cases)).value == pytest.approx(pairwise(cases))


@given(CASES)
def test_average_precision_is_the_mean_precision_at_the_poisons(
    cases: list[tuple[int, bool]],
) -> None:
    found = average_precision(*split(cases)).value
    assert found == pytest.approx(precision_at_each_poison(cases))


@given(CASES)
def test_both_are_those_of_scikit_learn(cases: list[tuple[int, bool]]) -> None:
    peers = pytest.importorskip("sklearn.metrics")
    scores, truth = split(cases)
    area, mean = peers.roc_auc_score(truth, scores), peers.average_precision_score(truth, scores)
    assert auroc(scores, truth).value == pytest.approx(area)
    assert average_precision(scores, truth).value == pytest.approx(mean)


@given(CASES)
def test_the_area_of_negated_scores_is_the_rest(cases: list[tuple[int, bool]]) -> None:
    scores, truth = split(cases)
    negated = auroc([-score for score in scores], truth).value
    assert negated == pytest.approx(1 - auroc(scores, truth).value)


@given(CASES, st.randoms(use_true_random=False))
def test_the_order_of_the_images_changes_nothing(cases: list[tuple[int, bool]], rng) -> None:
    shuffled = rng.sample(cases, len(cases))
    for metric in (auroc, average_precision):
        first = metric(*split(cases)).value
        assert metric(*split(shuffled)).value == pytest.approx(first)


@given(CASES)
def test_only_the_order_of_the_scores_counts(cases: list[tuple[int, bool]]) -> None:
    scores, truth = split(cases)
    stretched = np.exp(np.array(scores)) - 5
    assert auroc(stretched, truth) == auroc(scores, truth)


def test_intervals_hold_the_value_and_narrow_with_n() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for n in (40, 640):
        truth = np.arange(n) < n // 4
        found = auroc(rng.normal(truth, 1.0), truth)
        assert found.low < found.value < found.high and found.method == "delong-newcombe"
        widths.append(found.high - found.low)
    assert 2 < widths[0] / widths[1] < 8  # the root of 16 is 4


def test_one_poison_among_many_says_little_of_the_next() -> None:
    truth = np.arange(50) == 7
    found = auroc(np.arange(50.0), truth)
    assert (found.value, found.n) == (7 / 49, 50)
    assert 0 <= found.low < 0.01 and 0.9 < found.high <= 1


def test_average_precision_has_the_interval_of_a_rate_of_its_poisons() -> None:
    truth = np.arange(50) < 3
    found = average_precision(-np.arange(50.0), truth)
    assert (found.value, found.low, found.high) == (1.0, pytest.approx(0.025 ** (1 / 3)), 1.0)
    few = average_precision(-np.arange(50.0), ~truth)  # the clean ones are fewer, and come first
    assert few.high - few.low > 0.3


def test_the_area_has_the_interval_of_delong_and_that_of_newcombe() -> None:
    """Poisons at ranks 2 and 4 of four: placements 1/2 and 1, of clean ones 1/2 and 1."""
    found = auroc([1.0, 2, 3, 4], [False, True, False, True])
    half = 1.959964 * math.sqrt(2 * 0.125 / 2) / (0.75 * 0.25)  # on the logit scale
    ends = [1 / (1 + math.exp(-(math.log(3) + side))) for side in (-half, half)]
    assert (found.value, found.low, found.high) == (0.75, *map(pytest.approx, ends))
    bottom = brentq(lambda area: 0.75 - area - 1.959964 * deviation(area, 20, 30), 1e-9, 0.75)
    top = brentq(lambda area: area - 0.75 - 1.959964 * deviation(area, 20, 30), 0.75, 1 - 1e-9)
    assert _newcombe_low(0.75, 20, 30) == pytest.approx(bottom, abs=1e-6)
    assert 1 - _newcombe_low(0.25, 30, 20) == pytest.approx(top, abs=1e-6)


def deviation(area: float, m: int, n: int) -> float:
    """Newcombe 2006, method 5, as it is printed."""
    star = (m + n) / 2 - 1
    first, second = star * (1 - area) / (2 - area), star * area / (1 + area)
    return math.sqrt(area * (1 - area) * (1 + first + second) / (m * n))


@pytest.mark.parametrize("found_share", [None, 0.5, 0.85, 0.97])
def test_the_interval_of_an_area_covers_the_truth_for_few_poisons(
    found_share: float | None,
) -> None:
    """Normal scores, then detectors that find a share of the poisons and rank the rest last."""
    rng, hits, rounds = np.random.default_rng(0), 0, 150
    truth = found_share or NormalDist().cdf(1 / math.sqrt(2))
    for _ in range(rounds):
        poisons = rng.normal(1.0, 1.0, 6)
        if found_share is not None:
            poisons = np.where(rng.random(6) < found_share, 9.0, -9.0) + rng.normal(size=6)
        scores = np.concatenate([poisons, rng.normal(size=100)])
        found = auroc(scores, np.arange(106) < 6)
        hits += found.low <= truth <= found.high
    assert hits >= 0.93 * rounds


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30).filter(
        lambda cases: not all(bad for _, bad in cases)
    )
)
def test_rates_at_the_threshold_are_counts(cases: list[tuple[bool, bool]]) -> None:
    flagged, truth = np.array(cases).T
    hits = sum(flag and bad for flag, bad in cases)
    found = evaluate_detection(np.zeros(len(cases)), flagged, truth)
    assert found.residual_poisons == sum(bad and not flag for flag, bad in cases)
    if truth.any():
        assert found.recall and (found.recall.successes, found.recall.n) == (hits, sum(truth))
    alarms = found.false_alarm_rate
    assert alarms.successes == sum(flag and not bad for flag, bad in cases)
    assert alarms.n == len(cases) - sum(truth)
    rate = found.precision
    assert (rate is None) == (not flagged.any())
    assert rate is None or (rate.successes, rate.n) == (hits, sum(flagged))


def test_a_detector_is_judged_by_flags_or_by_places() -> None:
    scores, truth = np.array([9.0, 8, 7, 6, 5]), np.array([True, False, True, False, False])
    by_flag = evaluate_detection(scores, scores > 7.5, truth)
    assert by_flag == evaluate_detection(scores, np.array([1, 0]), truth)
    assert by_flag.recall is not None and by_flag.recall.value == 0.5
    assert by_flag.false_alarm_rate.successes == 1 and by_flag.residual_poisons == 1
    assert by_flag.precision is not None and by_flag.precision.n == 2


def test_on_a_clean_set_only_false_alarms_are_left_to_see() -> None:
    found = evaluate_detection([1.0, 2.0], [], np.array([False, False]))
    assert {name for name, value in vars(found).items() if value is not None} == {
        "false_alarm_rate",
        "residual_poisons",
    }


@pytest.mark.parametrize(
    ("scores", "truth", "reason"),
    [
        ([1.0, float("nan")], [True, False], "scores must be finite"),
        ([1.0, 2.0], [True], "lengths must be equal"),
        ([1.0, 2.0], [True, True], "at least one poisoned and one clean"),
        ([1.0, 2.0], [1, 0], "flags must be one bool per case, not int64"),
    ],
)
def test_what_is_no_ranking_is_refused(scores: list, truth: list, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        auroc(scores, truth)


def rating(before: float, after: float, accuracy: float, accuracy_after: float) -> float:
    return defence_effectiveness(before - after, accuracy_after - accuracy)


@pytest.mark.parametrize(
    ("rates", "wanted"),
    [
        ((1.0, 0.0, 0.9, 0.9), 1.0),  # the backdoor is gone at no cost
        ((1.0, 1.0, 0.9, 0.9), 0.5),  # nothing was done
        ((0.0, 0.0, 1.0, 0.0), 0.0),  # all accuracy lost for nothing
        ((0.96, 0.01, 0.98, 0.88), (0.95 - 0.10 + 1) / 2),
        ((0.5, 0.9, 0.9, 0.95), 0.5),  # what rises counts as no change
    ],
)
def test_the_rating_is_the_published_formula(rates: tuple[float, ...], wanted: float) -> None:
    assert rating(*rates) == pytest.approx(wanted)


@given(RATE, RATE, RATE, RATE, RATE)
def test_lost_accuracy_never_raises_the_rating(
    before: float, after: float, accuracy: float, one: float, other: float
) -> None:
    less, more = sorted((one, other))
    lower, higher = rating(before, after, accuracy, less), rating(before, after, accuracy, more)
    assert 0 <= lower <= higher <= 1


def test_a_rating_of_percentages_is_refused() -> None:
    with pytest.raises(ValueError, match="differences of rates must be from -1 to 1, not 95"):
        rating(96.0, 1.0, 98.0, 97.0)
