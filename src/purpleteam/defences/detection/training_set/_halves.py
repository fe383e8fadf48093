"""What the parts of a label show to a net that never saw them, and which of two was planted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from purpleteam.defences.detection.training_set._groups import SharedGroup, shared_group
from purpleteam.defences.detection.training_set._margins import log_probabilities, margins
from purpleteam.defences.detection.training_set._split import Split, nearness_of_others
from purpleteam.defences.detection.training_set._whitening import whiten
from purpleteam.models.inference import logits

if TYPE_CHECKING:
    from purpleteam.defences.detection.training_set._survey import Survey

__all__ = ["LEADING", "PartRead", "other_half", "outside_leading", "read_parts"]

LEADING = 2
"""Contents with the most members that do not count: those a label is honestly confused with."""
SEEDS = 40
"""How many of a part's images the search for what they share begins with."""
SURELY_NOT = -2.0
"""Log probability of its label less that of another one below which an image is surely another."""
BROADER = 0.25
"""By so much the shares outside the leading contents differ where one of two parts is planted."""
HALF = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class PartRead:
    """The smaller part of a label that falls in two, read by a net that never saw such a part.

    Attributes:
        split: the part.
        sure: how many of its images are surely something else than their label.
        broad: how many of these are none of the two contents that are read most.
        group: what they share that their contents do not; None where they are too few.
    """

    split: Split
    sure: int
    broad: int
    group: SharedGroup | None


def outside_leading(content: NDArray[np.int64], classes: int) -> float:
    """Return the share of the contents (N,) that are not among the most frequent two."""
    counts = np.sort(np.bincount(content, minlength=classes))
    return float(counts[:-LEADING].sum() / max(1, counts.sum()))


def read_parts(survey: Survey, splits: Sequence[Split]) -> tuple[PartRead, ...]:
    """Teach a net all but the smaller parts, and have it read them."""
    aside = np.concatenate([one.members for one in splits])
    rest = np.setdiff1d(np.arange(len(survey.images)), aside)
    net = survey.learned(rest, "net of the rest")
    said = log_probabilities(logits(net, survey.images.images[aside]))
    content, surely = survey.images.labels.copy(), np.zeros(len(survey.images))
    margin, content[aside] = margins(said, survey.images.labels[aside])
    surely[aside] = np.maximum(SURELY_NOT - margin, 0)
    pixels = survey.features("pixels")
    white = whiten(pixels, survey.images.labels, content, rest, seed=survey.seed)
    found = []
    for split in splits:
        sure = split.members[surely[split.members] > 0]
        group = shared_group(
            white,
            sure[np.argsort(-surely[sure], kind="stable")],
            label=split.label,
            features="pixels",
            seeds=SEEDS,
            refinements=3,
        )
        broad = round(outside_leading(content[sure], survey.classes) * len(sure))
        found.append(PartRead(split=split, sure=len(sure), broad=broad, group=group))
    return tuple(found)


def other_half(survey: Survey, label: int, flagged: NDArray[np.bool_]) -> bool:
    """Say whether of a label's images it is those not flagged, (N,), that were planted.

    Where about half of a label is planted, being the smaller part says nothing. A net that never
    saw the label reads honest images of it as one or two others, and planted ones as all that
    they show. Where both parts are read alike, as when labels were kept, honest images are those
    that lie where the images of other labels do.
    """
    labels = survey.images.labels
    own = np.flatnonzero(labels == label)
    net = survey.learned(np.flatnonzero(labels != label), "net of other labels")
    scores = logits(net, survey.images.images[own])
    scores[:, label] = -np.inf
    content, there = scores.argmax(1), flagged[own]
    broad = [outside_leading(content[part], survey.classes) for part in (there, ~there)]
    if abs(broad[0] - broad[1]) > BROADER:
        return broad[1] > broad[0]
    return nearness_of_others(survey.patch_features, labels, label, flagged) > HALF
