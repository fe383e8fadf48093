"""From what suspects share to an accusation: each threshold from both sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from purpleteam.data.images import ImageSet
from purpleteam.defences.detection.training_set._analysis import Analysis
from purpleteam.defences.detection.training_set._groups import Part, SharedGroup
from purpleteam.defences.detection.training_set.scanning import (
    accuse,
    compact_evidence,
    shared_evidence,
)

LABEL = 3


def shares(
    *of_content: int,
    strength: float,
    features: str = "pixels",
    apartness: float = 1.0,
    images: int = 300,
    others: float = 0.0,
) -> tuple[Analysis, SharedGroup]:
    """Return images of one label, of which so many of each other content are certain members.

    All that is seen of the analysis is set here, so that no net has to learn it.
    """
    members = np.arange(sum(of_content))
    analysis = Analysis(
        images=ImageSet(np.zeros((images, 1, 1, 1), np.uint8), np.full(images, LABEL)), classes=10
    )
    content = np.full(images, LABEL)
    content[members] = np.repeat(np.arange(4, 4 + len(of_content)), of_content)
    suspicion = np.where(np.arange(images) < len(members), 5.1, others)
    scores = np.where(np.arange(images) < len(members), strength, 0.0)
    group = SharedGroup(LABEL, features, strength, members, scores, apartness)
    analysis.__dict__.update(
        suspicion=suspicion, content=content, groups=(group,), compact=(), splits=()
    )
    return analysis, group


def planted(*of_content: int, **how: float | str) -> bool:
    analysis, group = shares(*of_content, **how)  # type: ignore[arg-type]
    assert (accuse(analysis).target_label == LABEL) == (shared_evidence(analysis, group) >= 1)
    return shared_evidence(analysis, group) >= 1


@pytest.mark.parametrize(
    ("features", "strong"), [("pixels", 7.0), ("patches", 20.0), ("fine_patches", 15.0)]
)
def test_a_group_of_one_content_is_planted_from_a_strength_on(features: str, strong: float) -> None:
    assert planted(40, strength=strong, features=features)
    assert not planted(40, strength=0.99 * strong, features=features)


def test_a_strong_group_has_28_certain_members_which_lie_as_their_content_does() -> None:
    assert planted(28, strength=30.0) and not planted(27, strength=30.0)
    assert planted(28, strength=30.0, apartness=1.4)
    assert not planted(28, strength=30.0, apartness=1.41)


def test_a_weak_group_has_five_certain_members_beyond_its_two_leading_contents() -> None:
    assert planted(9, 9, 3, 2, strength=2.5) and not planted(9, 9, 4, strength=2.5)
    assert not planted(9, 9, 3, 2, strength=2.49)


def test_of_a_large_label_they_are_22_in_ten_thousand() -> None:
    assert planted(30, 30, 22, strength=2.5, images=10_000)
    assert not planted(30, 30, 21, strength=2.5, images=10_000)


def test_members_that_are_not_certain_count_for_nothing() -> None:
    analysis, group = shares(40, strength=30.0)
    analysis.__dict__["suspicion"][:13] = 5.0
    assert shared_evidence(analysis, group) == pytest.approx(27 / 28)


@pytest.mark.parametrize(
    ("gap", "members", "is_planted"), [(5.0, 20, True), (4.9, 20, False), (5.0, 19, False)]
)
def test_a_compact_group_is_planted_from_a_gap_and_a_size_on(
    gap: float, members: int, is_planted: bool
) -> None:
    group = Part(LABEL, gap, np.arange(members), np.zeros(200))
    assert (compact_evidence(group) >= 1) == is_planted


@pytest.mark.parametrize(
    ("strength", "along", "suspicion", "flagged"),
    [
        (8.0, 4.0, 0.0, True),  # 1.6 times the 2.5 deviations that are ordinary
        (8.0, 3.9, 0.0, False),
        (8.0, 0.0, 5.0, True),  # a certain suspect ...
        (8.0, 0.0, 4.9, False),
        (20.0, 0.0, 5.0, False),  # ... unless the trigger is a strong one
        (20.0, 5.0, 0.0, True),
        (20.0, 4.9, 0.0, False),
    ],
)
def test_of_an_accused_label_what_is_aligned_or_certain_is_flagged(
    strength: float, along: float, suspicion: float, flagged: bool
) -> None:
    analysis, group = shares(20, 8, 6, strength=strength, features="pixels", images=300)
    group.scores[-1], analysis.__dict__["suspicion"][-1] = along, suspicion
    found = accuse(analysis)
    assert found.target_label == LABEL
    assert (found.scores[-1] >= 1) == flagged


def test_without_an_accusation_no_score_reaches_one() -> None:
    analysis, _ = shares(27, strength=30.0, others=1e9)
    found = accuse(analysis)
    assert found.target_label is None and found.evidence < 1 and (found.scores <= 1).all()


def test_what_an_accused_label_has_of_little_suspicion_is_not_flagged_by_it() -> None:
    analysis, _ = shares(40, strength=4e12, others=1e9)
    assert accuse(analysis).scores[40:].tolist() == pytest.approx([0.999] * 260)


def test_the_greatest_evidence_accuses_and_only_evidence_against_that_label_raises() -> None:
    analysis, group = shares(40, strength=14.0, images=600)
    labels = np.where(np.arange(600) < 300, LABEL, LABEL + 1)
    seen, analysis = (
        analysis.__dict__,
        replace(analysis, images=ImageSet(analysis.images.images, labels)),
    )
    others = np.where(np.arange(600) >= 300, 9.0, 0.0)
    of_other = SharedGroup(LABEL + 1, "pixels", 7.0, group.members, others, 1.0)
    weak = SharedGroup(LABEL, "pixels", 6.9, group.members, np.full(600, 9.0), 1.0)
    tight = Part(LABEL, 5.0, np.arange(20), np.where(np.arange(600) == 299, 0.5, 0.0))
    loose = Part(LABEL, 4.9, np.arange(20), np.where(np.arange(600) == 298, 0.5, 0.0))
    analysis.__dict__.update({name: seen[name] for name in ("suspicion", "content", "splits")})
    analysis.__dict__.update(groups=(of_other, group, weak), compact=(tight, loose))
    found = accuse(analysis)
    assert (found.target_label, found.evidence) == (LABEL, pytest.approx(1.4))
    assert np.flatnonzero(found.scores >= 1).tolist() == [*range(40), 299]
