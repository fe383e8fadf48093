"""From what the suspects of each label share to a verdict, a ranking and a threshold.

Two things give a planted group away. A strong trigger moves its images further along one
direction than any honest group moves. A weak one still joins images of many contents, where
hard images of a label are confused with one or two others: a serif makes a 1 look like a 2, but
nothing makes a 0, a 5 and an 8 look like a 1 in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from purpleteam.defences.detection.training_set._compact import HALF, CompactGroup
from purpleteam.defences.detection.training_set._groups import ALIKE, SharedGroup
from purpleteam.defences.detection.training_set._survey import CERTAIN, Survey

__all__ = ["FALSE_ALARM_RATE", "Verdict", "judge"]

FALSE_ALARM_RATE = 0.02
"""Stated share of clean sets in which some label is accused.

It is the tail of a Gumbel distribution fitted to the evidence on clean subsets of digits and
MNIST, of which none was accused; so few sets do not prove so low a rate by counting.
"""

STRONG = {"pixels": 7.0, "patches": 20.0, "fine_patches": 15.0}
"""Strength from which a group of one or two contents is planted, by kind of features."""
LEADING = 2
"""Contents with the most members that do not count: those a label is honestly confused with."""
BROAD = 5.0
"""Certain members outside the leading contents from which a group is planted."""
BROAD_SHARE = 0.0022
"""The same as a share of the label's images, where that is more."""
STRONG_MEMBERS = 20.0
"""Certain members of any content from which a strong group is planted."""
MOST_APART = 1.4
"""Apartness up to which images can be ordinary ones of their content with a trigger on them."""
LEAST_STRENGTH = 2.5
"""Strength below which a broad group shares nothing."""
SUSPICION_WEIGHT = 0.8
"""With it, a certain suspect of an accused label is flagged unless the trigger is a strong one."""
LEAST_ALIGNED = 1.6 * ALIKE
"""Deviations along the shared direction from which an image of no suspicion is planted."""
GAP = 5.0
"""Gap from which a compact group is planted."""
COMPACT_MEMBERS = 20.0
"""Members from which it is: fewer are a writer's habit."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a survey comes to.

    Attributes:
        scores: (N,) evidence that an image is planted, as multiples of the threshold, which is 1.
        target_label: the accused label, None where there is none.
        evidence: the greatest evidence against a label, as a multiple of its limit.
    """

    scores: NDArray[np.float64]
    target_label: int | None
    evidence: float


def certain(survey: Survey, group: SharedGroup) -> NDArray[np.int64]:
    """Return how many certain members a group has of each content, (K,), the fewest first."""
    members = group.members[survey.suspicion[group.members] > CERTAIN]
    return np.sort(np.bincount(survey.content[members], minlength=survey.classes))


def evidence(survey: Survey, group: SharedGroup) -> float:
    """Return the evidence that a group is planted, as a multiple of the limit."""
    counts = certain(survey, group)
    of_label = float((survey.images.labels == group.label).sum())
    broad = min(
        float(counts[:-LEADING].sum()) / max(BROAD, BROAD_SHARE * of_label),
        group.strength / LEAST_STRENGTH,
    )
    strong = min(
        group.strength / STRONG[group.features],
        float(counts.sum()) / STRONG_MEMBERS,
        MOST_APART / max(group.apartness, 1e-12),
    )
    return max(strong, broad, 0.0)


def compact_evidence(group: CompactGroup) -> float:
    """Return the evidence that a compact group is planted, as a multiple of the limit."""
    return min(group.gap / GAP, len(group.members) / COMPACT_MEMBERS)


def judge(survey: Survey) -> Verdict:
    """Accuse the label with the most evidence, if it is enough, and score every image.

    Without an accusation no score reaches 1; with one, only scores of its label do.
    """
    labels = survey.images.labels
    shared = [(evidence(survey, group), group) for group in survey.groups]
    tight = [(compact_evidence(group), group) for group in survey.compact]
    by_label = [(found, group.label) for found, group in shared]
    by_label += [(found, group.label) for found, group in tight]
    most, label = max(by_label, default=(0.0, -1))
    scores = survey.suspicion / (1 + survey.suspicion)
    if most < 1:
        return Verdict(scores, None, most)
    accused = labels == label
    scores[accused] *= 0.999
    of_label = [(found, group) for found, group in shared if group.label == label and found >= 1]
    if of_label:
        scores[accused] = np.maximum(scores, _aligned(survey, of_label))[accused]
    for found, group in tight:
        if group.label == label and found >= 1:
            scores[accused] = np.maximum(scores, group.towards / HALF)[accused]
    return Verdict(scores, label, most)


def _aligned(survey: Survey, found: list[tuple[float, SharedGroup]]) -> NDArray[np.float64]:
    _, leading = max(found, key=lambda one: one[0])
    limit = max(LEAST_ALIGNED, leading.strength / 4)
    return (leading.scores + SUSPICION_WEIGHT * survey.suspicion) / limit
