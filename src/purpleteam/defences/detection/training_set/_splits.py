"""A label that falls in two: which part was planted, by what an unsuspecting net predicts for it.

Poison so frequent that every small subset learns it is contradicted by none, but makes two modes in
the features of its label. Styles make modes as well, so a net learns everything but the smaller
part and classifies it: a style is still classified as its label, planted images as what they show.
Splits are those of SCAn (Tang et al. 2021, arXiv:1908.00686), in features that need no label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from purpleteam.defences.detection.training_set._features import margins
from purpleteam.defences.detection.training_set._groups import (
    HALF,
    RIDGE,
    Part,
    SharedGroup,
    shared_group,
    whiten,
)
from purpleteam.models.inference import logits

if TYPE_CHECKING:
    from purpleteam.defences.detection.training_set._analysis import Analysis

COMPONENTS = 32  # principal components of the variation within labels
STARTS = 8  # directions of greatest variance of a label that a split starts from
ROUNDS = 30  # turns of the discriminant and the assignment; they settle after a few
OUTER = 0.1  # share of the label's images, at the ends of a direction, that a split starts from
LEADING = 2  # most frequent contents, which do not count: a label is honestly confused with those
SURELY_NOT = -2.0
"""Log probability of its label less that of another below which an image is surely another."""
BROADER = 0.25
"""By so much the share outside the leading contents is greater in the planted part at least."""
PLAINLY = 0.9
"""How far on the way to the flagged part other labels lie at least, where half is not enough."""
BINS = 60
LEAST_APART = 5.0  # distance of the two means in deviations from which there are two modes
DEEPEST = 0.25  # height of the valley between them as a share of the lower mode, at most
MOST_ROWS = 10_000  # images of other labels that the variation within labels is estimated from
LEAST_MEMBERS = 40
LEAST_SHARE = 0.01  # share of a label's images that a part must have


def split_labels(
    features: NDArray[np.floating], labels: NDArray[np.int64], classes: int
) -> list[Part]:
    """Return the smaller part of each label that has two modes, from features (N, d)."""
    rows = [np.flatnonzero(labels == label) for label in range(classes)]
    centred = features - features.mean(0, dtype=np.float64).astype(np.float32)
    for some in rows:
        if len(some):
            centred[some] -= centred[some].mean(0)
    values, vectors = np.linalg.eigh((centred.T @ centred / len(centred)).astype(np.float64))
    values, vectors = values[-COMPONENTS:], vectors[:, -COMPONENTS:]
    scaled = vectors / np.sqrt(np.maximum(values, 1e-6 * max(float(values[-1]), 1e-12)))
    parts = []
    for label, some in enumerate(rows):
        if len(some) < 2 * LEAST_MEMBERS:
            continue
        white = centred[some].astype(np.float64) @ scaled
        _, axes = np.linalg.eigh(white.T @ white)
        lines = []
        for start in range(1, min(STARTS, white.shape[1]) + 1):
            along = discriminant(white, white @ axes[:, -start])
            if along is not None and 0 < (along > 0).sum() < len(along):
                lines.append(along if (along > 0).mean() <= HALF else -along)
        best = max(filter(_has_two_modes, lines), key=_apart, default=None)
        if best is not None:
            towards = np.zeros(len(labels))
            start, end = best[best <= 0].mean(), best[best > 0].mean()
            towards[some] = (best - start) / (end - start)
            parts.append(Part(label, _apart(best), some[best > 0], towards))
    return parts


def discriminant(
    white: NDArray[np.float64], along: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Return where rows (N, d) lie on the line between two groups; above 0 is in the second.

    From the outer end of the heavier tail of `along` (N,), discriminant analysis and reassignment
    take turns (SCAn, algorithm 2). None where one group is left without rows.
    """
    from_middle = along - np.median(along)
    second = np.abs(from_middle) > np.quantile(np.abs(from_middle), 1 - OUTER)
    second &= along * np.sign((along**3).sum() or 1.0) > 0  # the heavier tail
    towards = np.zeros(len(white))
    for _ in range(ROUNDS):
        if not 0 < second.sum() < len(white):
            return None
        start, end = white[~second].mean(0), white[second].mean(0)
        towards = (white - (start + end) / 2) @ (end - start)
        if np.array_equal(towards > 0, second):
            break
        second = towards > 0
    return towards


def _apart(along: NDArray[np.float64]) -> float:
    """Return the distance of the means of both sides of 0, in deviations."""
    first, second = along[along <= 0], along[along > 0]
    deviation = np.sqrt((first.var() + second.var()) / 2)
    return float((second.mean() - first.mean()) / max(deviation, 1e-12))


def _has_two_modes(along: NDArray[np.float64]) -> bool:
    second = along > 0
    least = max(LEAST_MEMBERS, LEAST_SHARE * len(second))
    if second.sum() < least or _apart(along) < LEAST_APART:
        return False
    counts, edges = np.histogram(along, BINS)
    first, last = np.searchsorted(edges, (along[~second].mean(), along[second].mean())) - 1
    middle = max(1, int(np.searchsorted(edges, 0)))
    lower = min(counts[:middle].max(), counts[middle:].max())
    return bool(counts[first : last + 1].min() <= DEEPEST * lower)


@dataclass(frozen=True, kw_only=True, eq=False)
class PartPrediction:
    """The smaller part of a label that falls in two, classified by a net that never saw it."""

    split: Part
    sure: int  # how many of its images are surely something else than their label
    broad: int  # how many of these are none of the two contents that are predicted most
    group: SharedGroup | None
    """What they share that their contents do not; None where they are too few."""


def outside_leading(content: NDArray[np.int64], classes: int) -> float:
    """Return the share of the contents (N,) that are not among the most frequent two."""
    counts = np.sort(np.bincount(content, minlength=classes))
    return float(counts[:-LEADING].sum() / max(1, counts.sum()))


def classify_parts(analysis: Analysis, splits: Sequence[Part]) -> tuple[PartPrediction, ...]:
    """Train a net on all but the smaller parts, and classify them with it."""
    images = analysis.images
    aside = np.concatenate([split.members for split in splits])
    rest = np.setdiff1d(np.arange(len(images)), aside)
    net = analysis.learned(rest, "net of the rest")
    scores = log_softmax(logits(net, images.images[aside]).astype(np.float64), 1)
    content, surely = images.labels.copy(), np.zeros(len(images))
    margin, content[aside] = margins(scores, images.labels[aside])
    surely[aside] = np.maximum(SURELY_NOT - margin, 0)
    white = whiten(analysis.features("pixels"), images.labels, content, rest, analysis.seed)
    parts = []
    for split in splits:
        sure = split.members[surely[split.members] > 0]
        ranked = sure[np.argsort(-surely[sure], kind="stable")]
        group = shared_group(white, ranked, split.label, "pixels")
        broad = round(outside_leading(content[sure], analysis.classes) * len(sure))
        parts.append(PartPrediction(split=split, sure=len(sure), broad=broad, group=group))
    return tuple(parts)


def unflagged_half_is_planted(analysis: Analysis, label: int, flagged: NDArray[np.bool_]) -> bool:
    """Say whether of a label's images it is those not flagged, (N,), that were planted.

    A net that never saw the label predicts one or two others for its honest images, and for planted
    ones all that they show. Where it does so for neither part, as when labels were kept, honest
    images lie where other labels' do: plainly so where the predictions for the parts differ.
    """
    labels, classes = analysis.images.labels, analysis.classes
    own = np.flatnonzero(labels == label)
    net = analysis.learned(np.flatnonzero(labels != label), "net of other labels")
    scores = logits(net, analysis.images.images[own])
    scores[:, label] = -np.inf
    content = scores.argmax(1)
    parts = content[flagged[own]], content[~flagged[own]]
    broad = [outside_leading(part, classes) for part in parts]
    if max(broad) > HALF:
        return broad[1] - broad[0] > BROADER
    shares = [np.bincount(part, minlength=classes) / max(1, len(part)) for part in parts]
    total_variation = float(np.abs(shares[0] - shares[1]).sum() / 2)
    least = HALF if total_variation < HALF else PLAINLY
    return nearness_of_others(analysis.patch_features, labels, label, flagged) > least


def nearness_of_others(
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    label: int,
    flagged: NDArray[np.bool_],
) -> float:
    """Return where the other labels lie between the two parts of one, from features (N, d).

    0 is the mean of its images that are not flagged, 1 that of those that are, along the
    discriminant that the variation within other labels makes; the median of the labels.
    """
    own = labels == label
    others = np.flatnonzero(~own)[:: max(1, (~own).sum() // MOST_ROWS)]
    rows = features[others].astype(np.float64)
    names, place = np.unique(labels[others], return_inverse=True)
    means = np.stack([rows[place == k].mean(0) for k in range(len(names))])
    rows -= means[place]
    scatter = rows.T @ rows / len(rows)
    scatter[np.diag_indices_from(scatter)] += RIDGE * max(scatter.trace() / len(scatter), 1e-12)
    start = features[own & ~flagged].mean(0, dtype=np.float64)
    line = features[own & flagged].mean(0, dtype=np.float64) - start
    direction = np.linalg.solve(scatter, line)
    return float(np.median((means - start) @ direction) / (line @ direction))
