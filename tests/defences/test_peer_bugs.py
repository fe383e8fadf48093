"""Two values that peers get wrong, beside ours and the same thing done by hand.

- Adversarial Robustness Toolbox 1.20.1 scores spectral signatures of features that are not
  centred, with a direction of features that are: the class's mean drowns what differs from it.
- BackdoorBench adds lost accuracy to its defence effectiveness rating, where Zhu et al. (2023,
  arXiv:2304.11823) subtract it: what destroys the model scores above what saves it.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purpleteam.defences.detection.metrics import auroc, defence_effectiveness
from purpleteam.defences.detection.training_set.spectral_signatures import (
    spectral_signature_scores,
)

FEW = settings(max_examples=25)
SEEDS = st.integers(0, 10_000)


def one_class(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (60, 5) of one class, far from the origin; the last six are poisons, nearer it."""
    rng = np.random.default_rng(seed)
    features = rng.normal((8.0, 0, 0, 0, 0), 0.1, (60, 5))
    poisoned = np.arange(60) >= 54
    features[poisoned, 0] -= 5.0
    return features, poisoned


def by_hand(features: np.ndarray) -> list[float]:
    """Tran et al. 2018, step by step: centre, find the direction by power iteration, project."""
    n, size = features.shape
    mean = [sum(row[at] for row in features) / n for at in range(size)]
    centred = [[row[at] - mean[at] for at in range(size)] for row in features]
    direction = [1.0 + at for at in range(size)]
    for _ in range(60):
        along = [sum(a * b for a, b in zip(row, direction)) for row in centred]
        direction = [sum(a * row[at] for a, row in zip(along, centred)) for at in range(size)]
        length = sum(a * a for a in direction) ** 0.5
        direction = [a / length for a in direction]
    return [sum(a * b for a, b in zip(row, direction)) ** 2 for row in centred]


def without_centring(features: np.ndarray) -> np.ndarray:
    """The peer's variant: the direction is of centred features, what is projected is not."""
    rows = np.linalg.svd(features - features.mean(0), full_matrices=False)[2]
    return np.abs(features @ rows[0])


@FEW
@given(SEEDS)
def test_our_spectral_scores_are_those_by_hand(seed: int) -> None:
    features, _ = one_class(seed)
    assert spectral_signature_scores(features) == pytest.approx(by_hand(features), rel=1e-6)


@FEW
@given(SEEDS, st.floats(-50, 50))
def test_our_spectral_scores_do_not_know_where_the_class_lies(seed: int, shift: float) -> None:
    features, _ = one_class(seed)
    moved = spectral_signature_scores(features + shift)
    assert moved == pytest.approx(spectral_signature_scores(features), rel=1e-6, abs=1e-9)


@FEW
@given(SEEDS)
def test_without_centring_the_poisons_come_last_where_ours_come_first(seed: int) -> None:
    features, poisoned = one_class(seed)
    assert auroc(spectral_signature_scores(features), poisoned).value == 1.0
    assert auroc(without_centring(features), poisoned).value == 0.0


def test_the_toolbox_ranks_the_poisons_last() -> None:
    module = "art.defences.detector.poison.spectral_signature_defense"
    peer = pytest.importorskip(module, reason="needs adversarial-robustness-toolbox")
    features, poisoned = one_class(0)
    theirs = peer.SpectralSignatureDefense.spectral_signature_scores(features).ravel()
    if theirs == pytest.approx(np.sqrt(by_hand(features))):
        pytest.skip("this version of the toolbox centres what it projects")
    assert theirs == pytest.approx(without_centring(features))
    assert auroc(theirs, poisoned).value == 0.0


def counted(labels: list[int], before: list[tuple], after: list[tuple]) -> Fraction:
    """The published rating, counted image by image; each has its clean and triggered answer."""
    others = [place for place, label in enumerate(labels) if label != 7]
    taken = [sum(answers[place][1] == 7 for place in others) for answers in (before, after)]
    right = [
        sum(clean == label for label, (clean, _) in zip(labels, answers))
        for answers in (before, after)
    ]
    gained = Fraction(max(0, taken[0] - taken[1]), len(others))
    lost = Fraction(max(0, right[0] - right[1]), len(labels))
    return (gained - lost + 1) / 2


def rates(labels: list[int], answers: list[tuple]) -> tuple[float, float]:
    """Attack success of target 7, and clean accuracy."""
    truth, answered = np.array(labels), np.array(answers)
    others = truth != 7
    return float((answered[others, 1] == 7).mean()), float((answered[:, 0] == truth).mean())


def ours(labels: list[int], before: list[tuple], after: list[tuple]) -> float:
    success, accuracy = rates(labels, before)
    success_after, accuracy_after = rates(labels, after)
    return defence_effectiveness(success - success_after, accuracy_after - accuracy)


def with_the_plus(labels: list[int], before: list[tuple], after: list[tuple]) -> float:
    """The peer's variant: what accuracy is lost is added."""
    success, accuracy = rates(labels, before)
    success_after, accuracy_after = rates(labels, after)
    return (max(0, success - success_after) + max(0, accuracy - accuracy_after) + 1) / 2


LABELS = [0, 1, 2, 3, 7, 0, 1, 2, 3, 7]
BACKDOORED = [(label, 7) for label in LABELS]
REPAIRED = [(label, label) for label in LABELS]
DESTROYED = [(9, 9) for _ in LABELS]


def test_with_the_plus_what_destroys_the_model_scores_above_what_repairs_it() -> None:
    assert with_the_plus(LABELS, BACKDOORED, DESTROYED) == 1.5  # above the top of the scale
    assert with_the_plus(LABELS, BACKDOORED, REPAIRED) == 1.0


def test_by_ours_the_repair_is_perfect_and_the_destruction_no_better_than_nothing() -> None:
    assert ours(LABELS, BACKDOORED, REPAIRED) == counted(LABELS, BACKDOORED, REPAIRED) == 1
    destroyed = ours(LABELS, BACKDOORED, DESTROYED)
    assert destroyed == counted(LABELS, BACKDOORED, DESTROYED) == 0.5
    assert destroyed == ours(LABELS, BACKDOORED, BACKDOORED)


GIVEN = st.sampled_from([1, 2, 7])
ANSWERS = st.lists(st.tuples(GIVEN, GIVEN), min_size=10, max_size=10)


@given(ANSWERS, ANSWERS)
def test_our_rating_is_the_one_counted_by_hand(before: list[tuple], after: list[tuple]) -> None:
    assert ours(LABELS, before, after) == pytest.approx(float(counted(LABELS, before, after)))
