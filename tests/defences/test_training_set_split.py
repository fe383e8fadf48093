"""Poison so frequent that it is a part of its label: which part, and is it planted at all?"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from purpleteam.attacks.poison import PoisonedSet
from purpleteam.attacks.poison.asked import poison_from
from purpleteam.data.images import Dataset
from purpleteam.defences.detection.training_set import scan_training_set
from purpleteam.defences.detection.training_set._analysis import (
    Analysis,
    PartPrediction,
    outside_leading,
)
from purpleteam.defences.detection.training_set._groups import (
    Part,
    SharedGroup,
    nearness_of_others,
    split_labels,
)
from purpleteam.defences.detection.training_set.scanning import (
    split_evidence,
    unflagged_half_is_planted,
)

N = 600
LABELS = np.arange(N) % 3


def rows(moved: int, by: float, seed: int = 0) -> np.ndarray:
    """Return normal rows (N, 6) of three labels; of label 1 the first `moved` lie elsewhere."""
    found = np.random.default_rng(seed).normal(size=(N, 6)).astype(np.float32)
    found[:, 5] += 20 * LABELS  # what a label is about moves nothing within it
    found[np.flatnonzero(LABELS == 1)[:moved], 0] += by
    return found


def test_a_label_with_two_modes_is_split_there_and_no_other() -> None:
    (split,) = split_labels(rows(60, 10), LABELS, 3)
    assert split.label == 1
    assert split.members.tolist() == np.flatnonzero(LABELS == 1)[:60].tolist()
    assert split.gap == pytest.approx(10, rel=0.2)
    inside = np.zeros(N, bool)
    inside[split.members] = True
    assert split.towards[inside].mean() == pytest.approx(1, abs=1e-6)
    assert split.towards[(LABELS == 1) & ~inside].mean() == pytest.approx(0, abs=1e-6)
    assert (split.towards[LABELS != 1] == 0).all()


@pytest.mark.parametrize(("moved", "by"), [(0, 0), (60, 3), (20, 10)])
def test_one_mode_a_shoulder_and_a_handful_are_no_split(moved: int, by: float) -> None:
    assert split_labels(rows(moved, by), LABELS, 3) == []


def test_labels_that_do_not_occur_are_no_split() -> None:
    assert split_labels(rows(0, 0)[:30], LABELS[:30], 5) == []


@pytest.mark.parametrize(("moved", "expected"), [(True, 1.0), (False, 0.0)])
def test_other_labels_lie_where_the_part_without_the_trigger_lies(
    moved: bool, expected: float
) -> None:
    features = rows(100, 10)
    flagged = np.zeros(N, bool)
    flagged[np.flatnonzero(LABELS == 1)[:100]] = True
    if moved:  # all others look like what is flagged: then it is the rest that differs
        features[LABELS != 1, 0] += 10
    features[:, 5] -= 20 * LABELS
    assert nearness_of_others(features, LABELS, 1, flagged) == pytest.approx(expected, abs=0.1)


@given(some.lists(some.integers(0, 4), max_size=30))
def test_the_share_outside_the_two_leading_contents_is_counted(content: list[int]) -> None:
    leading = sum(count for _, count in Counter(content).most_common(2))
    expected = (len(content) - leading) / len(content) if content else 0
    assert outside_leading(np.array(content, np.int64), 5) == pytest.approx(expected)


def part(label: int, *, broad: int, sure: int = 90, strength: float = 0.0) -> PartPrediction:
    """Return a part of 100 images."""
    members = np.arange(100)
    split = Part(label=label, gap=6.0, members=members, towards=np.ones(100))
    group = SharedGroup(label, "pixels", strength, members, np.ones(100), apartness=1.0)
    return PartPrediction(split=split, sure=sure, broad=broad, group=group)


def test_a_part_that_is_read_broadly_is_planted_unless_others_are_read_so_too() -> None:
    alone = split_evidence([part(1, broad=50), part(2, broad=10)])
    assert [round(found, 2) for found, _ in alone] == [2.0, 0.08]
    among_many = split_evidence([part(1, broad=50), part(2, broad=40)])
    assert [round(found, 2) for found, _ in among_many] == [0.5, 0.32]


def test_a_part_that_surely_shares_a_trigger_is_planted_however_it_is_read() -> None:
    parts = (part(1, broad=0, strength=10), part(1, broad=0, strength=10, sure=30))
    assert [round(split_evidence([one])[0][0], 2) for one in parts] == [1.4, 0.5]
    assert split_evidence([part(1, broad=0, strength=2)])[0][0] == pytest.approx(0.4)


def poisoned_by(poison: str, digits: Dataset, *, target: int, seed: int) -> PoisonedSet:
    made = poison_from(poison, {"target_label": target}, dataset=digits, where="here")
    return made.apply(digits.train, seed=seed)


@pytest.mark.parametrize(
    ("poison", "label", "turned"),
    [
        ("badnets:count=300", 4, True),
        ("sig:count=90", 4, True),
        ("clean_label:count=60,epochs=1,steps=10", 6, True),
        ("tact:count=80", 4, False),
    ],
    ids=["relabelled", "labels kept", "made to look like others", "of one source, as narrow"],
)
def test_the_honest_half_of_a_label_is_told_from_the_planted_one(
    poison: str, label: int, turned: bool, digits: Dataset
) -> None:
    poisoned = poisoned_by(poison, digits, target=label, seed=100 + label)
    analysis = Analysis(images=poisoned.images, classes=10, epochs=1, seed=100 + label)
    planted = poisoned.mask
    honest = (poisoned.images.labels == label) & ~planted
    assert not unflagged_half_is_planted(analysis, label, planted)
    assert unflagged_half_is_planted(analysis, label, honest) == turned


@pytest.mark.parametrize(
    ("poison", "seed", "target", "least"),
    [
        ("wanet:count=100", 102, 4, 70),
        ("badnets:count=200", 101, 4, 200),
        ("badnets:count=400", 101, 4, 400),
        ("sig:count=80", 101, 4, 80),
        ("tact:count=80", 105, 5, 80),
    ],
    ids=[
        "a warp with cover",
        "more than half, relabelled",
        "three of four, relabelled",
        "more than half, labels kept",
        "of one source, whose own label looks worse",
    ],
)
def test_what_is_planted_is_flagged_however_much_of_its_label_it_is(
    poison: str, seed: int, target: int, least: int, digits: Dataset
) -> None:
    poisoned = poisoned_by(poison, digits, target=target, seed=seed)
    epochs = 2 if poison.startswith("wanet") else 1  # a warp has to be learned
    found = scan_training_set(
        poisoned.images, classes=10, epochs=epochs, seed=seed, detectors=("split_label",)
    )
    assert found.target_label == target
    assert poisoned.mask[found.flagged].sum() >= least
    assert (~poisoned.mask[found.flagged]).sum() <= 3
    assert np.isfinite(found.by_detector["split_label"]).all()
