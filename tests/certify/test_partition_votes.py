"""The certificate against brute force: every way to change r votes, on tables small enough."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from purpleteam.certify.dpa import certified_radii

Ballots = tuple[int | None, ...]
"""One answer for each part; None where the part is empty and does not vote."""


def winner_of(votes: np.ndarray) -> int:
    """Return the label with the most votes, the smallest of several."""
    return int(np.flatnonzero(votes[0] == votes.max())[0])


def counted(ballots: Ballots, classes: int) -> np.ndarray:
    return np.array([[sum(one == label for one in ballots) for label in range(classes)]])


def changed(ballots: Ballots, classes: int, changes: int) -> Iterator[Ballots]:
    """Return every vote after changes to so many parts, each to any label or to none."""
    answers = (None, *range(classes))
    for parts in combinations(range(len(ballots)), changes):
        for new in product(answers, repeat=changes):
            after = list(ballots)
            for part, answer in zip(parts, new):
                after[part] = answer
            yield tuple(after)


def smallest_turn(ballots: Ballots, classes: int) -> int:
    """Return how few changed parts make another label win, by trying all."""
    winner = winner_of(counted(ballots, classes))
    for changes in range(1, len(ballots) + 1):
        for after in changed(ballots, classes, changes):
            if winner_of(counted(after, classes)) != winner:
                return changes
    raise AssertionError("whoever holds every part decides")


@given(st.lists(st.sampled_from([None, 0, 1, 2]), min_size=1, max_size=5).map(tuple))
def test_the_radius_is_one_less_than_the_fewest_changes_that_turn_the_vote(
    ballots: Ballots,
) -> None:
    radius = certified_radii(counted(ballots, 3))[0]
    assert radius == smallest_turn(ballots, 3) - 1


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_it_is_exact_for_every_vote_of_two_labels(parts: int) -> None:
    for ballots in product((None, 0, 1), repeat=parts):
        assert certified_radii(counted(ballots, 2))[0] == smallest_turn(ballots, 2) - 1


def test_the_smaller_label_wins_a_tie_and_so_needs_one_vote_less() -> None:
    assert certified_radii(np.array([[5, 3], [3, 5], [5, 2], [2, 5]])).tolist() == [1, 0, 1, 1]


@given(
    st.lists(st.integers(0, 2000), min_size=2, max_size=10),
    st.integers(0, 9),
    st.integers(0, 9),
)
def test_votes_moved_up_to_the_radius_never_turn_a_vote_of_any_size(
    row: list[int], source: int, target: int
) -> None:
    votes = np.array([row])
    radius, winner = certified_radii(votes)[0], winner_of(votes)
    votes[0, winner] -= radius
    votes[0, target % len(row)] += radius
    assert winner_of(votes) == winner
