"""What the parts of a label show to a net that never saw them, and which of two was planted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from purpleteam.defences.detection.training_set._compact import HALF
from purpleteam.defences.detection.training_set._groups import SEEDS, SharedGroup, shared_group
from purpleteam.defences.detection.training_set._margins import log_probabilities, margins
from purpleteam.defences.detection.training_set._split import Split, nearness_of_others
from purpleteam.defences.detection.training_set._whitening import whiten
from purpleteam.models.inference import logits

if TYPE_CHECKING:
    from purpleteam.defences.detection.training_set._survey import Survey

__all__ = ["LEADING", "PartRead", "other_half", "outside_leading", "read_parts"]

LEADING = 2
"""Contents with the most members that do not count: those a label is honestly confused with."""
SURELY_NOT = -2.0
"""Log probability of its label less that of another one below which an image is surely another."""
BROADER = 0.25
"""By so much the share outside the leading contents is greater in the planted part at least."""
PLAINLY = 0.9
"""How far on the way to the flagged part other labels lie at least, where half is not enough."""


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


def apart(one: NDArray[np.int64], other: NDArray[np.int64], classes: int) -> float:
    """Return the total variation distance of the contents of two parts, in [0, 1]."""
    shares = [np.bincount(part, minlength=classes) / max(1, len(part)) for part in (one, other)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


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
    they show. Where neither part is read so broadly, as when labels were kept, honest images are
    those that lie where the images of other labels do: plainly so where the parts are read as
    different things, since then a trigger is not all they differ by.
    """
    labels = survey.images.labels
    own = np.flatnonzero(labels == label)
    net = survey.learned(np.flatnonzero(labels != label), "net of other labels")
    scores = logits(net, survey.images.images[own])
    scores[:, label] = -np.inf
    content, there = scores.argmax(1), flagged[own]
    broad = [outside_leading(content[part], survey.classes) for part in (there, ~there)]
    if max(broad) > HALF:
        return broad[1] - broad[0] > BROADER
    least = HALF if apart(content[there], content[~there], survey.classes) < HALF else PLAINLY
    return nearness_of_others(survey.patch_features, labels, label, flagged) > least
