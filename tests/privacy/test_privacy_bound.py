"""The lower bound of a one-run audit: what guesses may prove, against counting every case."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purpleteam.privacy.audit import epsilon_lower, tail


def counted(guesses: int, right: int, epsilon: float) -> float:
    """Return the chance of so many right guesses by randomised response, case by case."""
    chance = math.exp(epsilon) / (1 + math.exp(epsilon))
    cases = itertools.product((True, False), repeat=guesses)
    return sum(
        chance ** sum(case) * (1 - chance) ** (guesses - sum(case))
        for case in cases
        if sum(case) >= right
    )


@pytest.mark.parametrize("epsilon", [0.0, 0.7, 2.0])
def test_without_delta_it_is_the_tail_of_randomised_response(epsilon: float) -> None:
    for right in range(11):
        assert tail(30, 10, right, epsilon, 0.0) == pytest.approx(counted(10, right, epsilon))


def test_with_delta_it_is_theorem_five_two_term_by_term() -> None:
    canaries, guesses, right, epsilon, delta = 30, 10, 8, 0.7, 1e-3
    whole = [counted(guesses, k, epsilon) for k in range(guesses + 1)]
    most = max((whole[right - i] - whole[right]) / i for i in range(1, right + 1))
    expected = whole[right] + 2 * canaries * delta * most
    assert tail(canaries, guesses, right, epsilon, delta) == pytest.approx(expected)


GUESSED = st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))
DELTA = st.sampled_from([0.0, 1e-6, 1e-5, 1e-3])


@given(GUESSED, DELTA, st.floats(0, 6), st.floats(0, 6))
def test_more_epsilon_makes_right_guesses_likelier(
    guessed: tuple[int, int], delta: float, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    assert tail(200, *guessed, low, delta) <= tail(200, *guessed, high, delta) + 1e-12


@given(GUESSED, DELTA)
def test_more_right_guesses_prove_no_less(guessed: tuple[int, int], delta: float) -> None:
    guesses, right = guessed
    found = epsilon_lower(200, guesses, right, delta, 0.999)
    assert found <= epsilon_lower(200, guesses, min(right + 1, guesses), delta, 0.999)
    assert found <= epsilon_lower(200, guesses, right, 0.0, 0.999)
    assert found <= epsilon_lower(200, guesses, right, delta, 0.9)


@given(GUESSED, DELTA)
def test_what_it_proves_is_just_not_refuted(guessed: tuple[int, int], delta: float) -> None:
    found = epsilon_lower(200, *guessed, delta, 0.999)
    if found > 0:
        assert tail(200, *guessed, found, delta) <= 0.001
        assert tail(200, *guessed, found + 1e-5, delta) >= 0.001 - 1e-6
    else:
        assert tail(200, *guessed, 0.001, delta) >= 0.001 - 1e-6


def test_half_right_proves_nothing_and_all_right_much() -> None:
    assert epsilon_lower(1000, 500, 250, 1e-5, 0.999) == 0
    assert epsilon_lower(1000, 1000, 1000, 0.0, 0.999) == pytest.approx(4.97, abs=0.01)
    assert epsilon_lower(1000, 500, 500, 1e-5, 0.999) == pytest.approx(3.57, abs=0.01)
