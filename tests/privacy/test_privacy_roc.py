"""ROC curves: counted by hand on few images, and unmoved by what changes no order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from purpleteam.core.arrays import Bools, Floats
from purpleteam.core.errors import UsageError
from purpleteam.privacy.roc import Roc

CASES = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=4, max_size=40).filter(
    lambda rows: 0 < sum(member for _, member in rows) < len(rows)
)


def split(rows: list[tuple[int, bool]]) -> tuple[Floats, Bools]:
    scores, member = zip(*rows, strict=True)
    return np.array(scores, float), np.array(member)


@given(CASES)
def test_the_area_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    scores, member = split(rows)
    pairs = [(a > b) + (a == b) / 2 for a in scores[member] for b in scores[~member]]
    auc = Roc.of(scores, member).auc()
    assert auc.value == pytest.approx(np.mean(pairs))
    assert 0 <= auc.low <= auc.value <= auc.high <= 1


@given(CASES, st.floats(0.05, 1))
def test_members_are_found_at_the_lowest_threshold_that_the_rate_allows(
    rows: list[tuple[int, bool]], rate: float
) -> None:
    scores, member = split(rows)
    others = (~member).sum()
    found = Roc.of(scores, member).tpr_at(rate)
    allowed = [t for t in {*scores} if (scores[~member] >= t).sum() <= rate * others + 1e-9]
    if rate * others < 1 - 1e-9:
        assert found is None
    elif found is not None:
        best = max(((scores[member] >= t).sum() for t in allowed), default=0)
        assert found.successes == best


@given(CASES)
def test_a_growing_function_of_the_scores_changes_nothing(rows: list[tuple[int, bool]]) -> None:
    scores, member = split(rows)
    one, other = Roc.of(scores, member), Roc.of(np.exp(scores) * 3 - 7, member)
    assert one.to_json() == other.to_json()


def test_scores_that_say_nothing_recognise_nobody() -> None:
    member = np.arange(400) % 2 == 0
    flat = Roc.of(np.zeros(400), member)
    assert flat.auc().value == 0.5
    assert flat.advantage().value == 0
    assert flat.tpr_at(0.01).successes == 0  # type: ignore[union-attr]


def test_a_coin_has_no_advantage_though_its_best_threshold_has() -> None:
    rng = np.random.default_rng(0)
    values = [Roc.of(rng.normal(size=60), np.arange(60) < 30).advantage(n) for n in range(40)]
    assert abs(np.mean([value.value for value in values])) < 0.05
    assert np.mean([value.low <= 0 <= value.high for value in values]) > 0.9


@given(CASES, st.floats(0.05, 0.5))
def test_the_bounds_hold_the_rate_and_widen_with_fewer_others(
    rows: list[tuple[int, bool]], rate: float
) -> None:
    roc = Roc.of(*split(rows))
    low, high = roc.bounds_at(rate)
    assert 0 <= low <= high <= 1
    if (found := roc.tpr_at(rate)) is not None:
        assert low <= found.value <= high


def test_the_bounds_of_a_coin_hold_its_rate_though_the_threshold_is_chosen() -> None:
    rng, member = np.random.default_rng(0), np.arange(400) < 200
    bounds = [Roc.of(rng.normal(size=400), member).bounds_at(0.05) for _ in range(200)]
    assert np.mean([low <= 0.05 <= high for low, high in bounds]) >= 0.95


def test_an_image_without_an_answer_is_recognised_last() -> None:
    scores, member = np.array([np.nan, 1.0, 0.0, -5.0]), np.array([True, True, False, False])
    assert Roc.of(scores, member).auc().value == 0.5


def test_too_few_others_for_a_rate_give_no_number() -> None:
    perfect = Roc.of(np.arange(200.0), np.arange(200) >= 100)
    assert perfect.tpr_at(0.001) is None
    assert perfect.tpr_at(0.01).value == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("member", [[True, True], [False, False]])
def test_members_alone_are_refused(member: list[bool]) -> None:
    with pytest.raises(UsageError, match="members and others"):
        Roc.of(np.zeros(2), np.array(member))
