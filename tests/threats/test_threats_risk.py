from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purpleteam.threats.model import LEVELS, RATINGS, Effect, Risk, level, worst

MATRIX = {
    ("low", "low"): "note",
    ("low", "medium"): "low",
    ("low", "high"): "medium",
    ("medium", "low"): "low",
    ("medium", "medium"): "medium",
    ("medium", "high"): "high",
    ("high", "low"): "medium",
    ("high", "medium"): "high",
    ("high", "high"): "critical",
}

RATING = st.sampled_from(RATINGS)
RISK = st.builds(Risk, likelihood=RATING, impact=RATING, why=st.just(""))
EFFECTS = st.lists(
    st.builds(Effect, likelihood=st.sampled_from([-1, 0]), impact=st.sampled_from([-1, 0])),
    max_size=5,
)


@pytest.mark.parametrize(("ratings", "expected"), MATRIX.items())
def test_the_matrix_is_the_one_of_owasp(ratings, expected):
    assert level(*ratings) == expected


@given(RISK, EFFECTS)
def test_what_remains_is_never_above_what_was(risk: Risk, effects: list[Effect]):
    assert LEVELS.index(risk.after(effects)) <= LEVELS.index(risk.level)


@given(RISK, EFFECTS, EFFECTS)
def test_one_more_effect_never_raises_what_remains(risk: Risk, some, more):
    assert LEVELS.index(risk.after([*some, *more])) <= LEVELS.index(risk.after(some))


@given(RISK)
def test_without_effects_all_of_it_remains(risk: Risk):
    assert risk.after([]) == risk.level


def test_likelihood_alone_cannot_bring_a_high_impact_below_medium():
    risk = Risk(likelihood="high", impact="high", why="")
    assert risk.after([Effect(likelihood=-1)] * 9) == "medium"


def test_the_worst_of_no_levels_is_none():
    assert worst([]) is None
    assert worst(["low", "critical", "note"]) == "critical"
