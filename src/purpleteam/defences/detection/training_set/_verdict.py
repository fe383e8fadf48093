"""From what the suspects of each label share to a verdict, a ranking and a threshold.

Two things give a planted group away while it is small, and a third where it is large. A strong
trigger moves its images further along one direction than any honest group moves. A weak one still
joins images of many contents, where hard images of a label are confused with one or two others: a
serif makes a 1 look like a 2, but nothing makes a 0, a 5 and an 8 look like a 1 in the same way.
What is so frequent that nothing contradicts it is a part of its label by itself, and shows
something else to who never saw it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from purpleteam.defences.detection.training_set._compact import HALF, CompactGroup
from purpleteam.defences.detection.training_set._groups import ALIKE, SharedGroup
from purpleteam.defences.detection.training_set._halves import LEADING, PartRead, other_half
from purpleteam.defences.detection.training_set._split import Split
from purpleteam.defences.detection.training_set._survey import CERTAIN, Survey

__all__ = ["FALSE_ALARM_RATE", "Verdict", "judge"]

FALSE_ALARM_RATE = 0.02
"""Stated share of clean sets in which some label is accused.

No less than the tail of a Gumbel distribution fitted to the evidence on disjoint clean subsets
(results/backdoors.json, calibration); so few sets do not prove so low a rate by counting.
"""

STRONG = {"pixels": 7.0, "patches": 20.0, "fine_patches": 15.0}
"""Strength from which a group of one or two contents is planted, by kind of features."""
BROAD = 5.0
"""Certain members outside the leading contents from which a group is planted."""
BROAD_SHARE = 0.0022
"""The same as a share of the label's images, where that is more."""
STRONG_MEMBERS = 28.0
"""Certain members of any content from which a strong group is planted: fewer may be a style."""
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
HONEST = 0.999
"""What the scores of an accused label's other images stay below, of a threshold of 1."""
LARGE = 0.15
"""Share of a label's images from which the flagged may be the honest ones."""
SPLIT_SURE = 0.6
"""Share of a label's smaller part that is surely something else from which it is planted ..."""
SPLIT_STRENGTH = 5.0
"""... if by so many deviations they share in pixels what their contents do not have ..."""
SPLIT_BROAD = 0.25
"""... and, whatever they share, the share that is read broadly, from which it is."""
SPLIT_ALONE = 2.5
"""So many times as many must be as in any other label: a rare view occurs in all of them."""


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


def split_evidence(parts: Sequence[PartRead]) -> list[tuple[float, Split]]:
    """Return the evidence that each smaller part is planted, as a multiple of the limit."""
    broad = [part.broad for part in parts]
    found = []
    for place, part in enumerate(parts):
        next_most = max(broad[:place] + broad[place + 1 :], default=0)
        size = len(part.split.members)
        as_broad = min(
            part.broad / (SPLIT_BROAD * size), part.broad / (SPLIT_ALONE * max(next_most, 1))
        )
        as_triggered = 0.0
        if part.group is not None:
            as_triggered = min(
                part.sure / (SPLIT_SURE * size),
                part.group.strength / SPLIT_STRENGTH,
                MOST_APART / max(part.group.apartness, 1e-12),
            )
        found.append((max(as_broad, as_triggered, 0.0), part.split))
    return found


def judge(survey: Survey) -> Verdict:
    """Accuse the label with the most evidence, if it is enough, and score every image.

    Without an accusation no score reaches 1; with one, only scores of its label do.
    """
    scores = survey.suspicion / (1 + survey.suspicion)
    most, label, raised = _accusation(survey)
    if most >= 1:
        accused = survey.images.labels == label
        scores[accused] = np.maximum(HONEST * scores, raised)[accused]
        scores = _right_half(survey, label, scores)
    return Verdict(scores, label if most >= 1 else None, most)


def _accusation(survey: Survey) -> tuple[float, int, NDArray[np.float64]]:
    """Return the greatest evidence, the label it is against, and the scores it raises to, (N,).

    Scores that single images give go before those of a split, a line through all of them.
    """
    shared = [(evidence(survey, group), group) for group in survey.groups]
    tight = [(compact_evidence(group), group) for group in survey.compact]
    by_label = [(found, group.label) for found, group in shared]
    by_label += [(found, group.label) for found, group in tight]
    parts = [(found, split) for found, split in split_evidence(survey.splits) if found >= 1]
    if parts:  # so large a part makes suspects of other labels too, and they make evidence
        in_part, planted = max(parts, key=lambda one: one[0])
        by_label = [one for one in by_label if one[1] == planted.label]
        if max(by_label, default=(0.0, -1))[0] < 1:
            return in_part, planted.label, planted.towards / HALF
    most, label = max(by_label, default=(0.0, -1))
    raised = np.zeros(len(survey.images))
    of_label = [(found, group) for found, group in shared if group.label == label and found >= 1]
    if of_label:
        raised = _aligned(survey, max(of_label, key=lambda one: one[0])[1])
    for found, small in tight:
        if small.label == label and found >= 1:
            raised = np.maximum(raised, small.towards / HALF)
    return most, label, raised


def _aligned(survey: Survey, group: SharedGroup) -> NDArray[np.float64]:
    limit = max(LEAST_ALIGNED, group.strength / 4)
    return (group.scores + SUSPICION_WEIGHT * survey.suspicion) / limit


def _right_half(survey: Survey, label: int, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the scores, turned over where what they flag is the honest half of the label."""
    own = survey.images.labels == label
    flagged = own & (scores >= 1)
    few, some = LARGE * own.sum(), flagged.sum()
    if not few < some < own.sum() or not other_half(survey, label, flagged):
        return scores
    turned = np.maximum(2 - scores, 0)
    return np.where(own, np.where(flagged, np.minimum(turned, HONEST), turned), scores)
