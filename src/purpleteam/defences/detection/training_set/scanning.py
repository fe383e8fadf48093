"""The scan of a training set: evidence against each label, a verdict, and every detector's scores.

A strong trigger moves its images further along one direction than any honest group moves. A weak
one still joins images of many contents, where hard images are confused with one or two. Frequent
poison is a part of its label by itself, which a net that never saw it classifies as something else.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from purpleteam.core.arrays import Bools, Floats, Ints
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.images import ImageSet
from purpleteam.defences.detection.outcome import UNLIKE, Calibrated, Scan
from purpleteam.defences.detection.training_set import _groups as groups
from purpleteam.defences.detection.training_set._analysis import (
    CERTAIN,
    LEADING,
    TRAINING_SET_DETECTORS,
    Analysis,
    PartPrediction,
    outside_leading,
)
from purpleteam.models.inference import logits

FALSE_ALARM_RATE = 0.02
"""Stated share of clean sets in which some label is accused.

No less than the tail of a Gumbel distribution fitted to the evidence on disjoint clean subsets
(results/backdoors.json, calibration): the subsets are too few to prove so low a rate by counting.
"""
# A shared group of one or two contents is planted from this strength on, by kind of features, ...
STRONG = {"pixels": 7.0, "patches": 20.0, "fine_patches": 15.0}
STRONG_MEMBERS = 28.0  # ... with this many certain members (fewer may be a style) ...
MOST_APART = 1.4  # ... that are, up to this apartness, ordinary images of their content otherwise
BROAD = 5.0  # certain members outside the leading contents from which a group is planted
BROAD_SHARE = 0.0022  # the same as a share of the label's images, where that is more
LEAST_STRENGTH = 2.5  # strength below which a broad group shares nothing
SUSPICION_WEIGHT = 0.8  # flags certain suspects of an accused label, unless the trigger is strong
LEAST_ALIGNED = 1.6 * groups.ALIKE  # deviations from which an image of no suspicion is planted
GAP = 5.0  # gap from which a compact group is planted
COMPACT_MEMBERS = 20.0  # members from which it is: fewer are a writer's habit
HONEST = 0.999  # what the scores of an accused label's other images stay below, of a threshold of 1
LARGE = 0.15  # share of a label's images from which the flagged may be the honest ones
# The smaller part of a label is planted where this share of it is surely something else ...
SPLIT_SURE = 0.6
SPLIT_STRENGTH = 5.0  # ... and shares as many deviations in pixels that their contents lack; or
SPLIT_BROAD = 0.25  # where this share lies outside the leading contents ...
SPLIT_ALONE = 2.5  # ... and this many times as many as in any other label: rare views are in all
BROADER = 0.25  # least excess of the planted part's share outside the leading contents
PLAINLY = 0.9  # how far towards the flagged part other labels lie, where half is not enough
DEFAULT_DETECTORS = (
    *("small_subsets", "label_errors", "clean_reference"),
    *("shared_trigger", "compact_group", "split_label"),
)
"""Those that the verdict is made from; the others need a net more, and are there to compare."""
# handwritten digits: subsets of MNIST and the embedded ones, with some room
CALIBRATED = Calibrated(
    images=300, of_each=50, share_of_each=0.2, classes=(6, 20), sides=(20, 40), channels=(1,)
)
LEAST_READ = 0.85  # share that small subsets read as their label: 0.89 in a thousand of MNIST
ALIKE_PARTS = 3
"""Labels that each fall in two, by a compact group or a part at least half as large as the largest,
from which the set has styles: a trigger does that to one label, templates to most."""


class Accusation(NamedTuple):
    """The label with the most evidence against it, and what follows for each image."""

    scores: Floats  # (N,) evidence that an image is planted; the threshold is 1
    target_label: int | None  # the accused label; None where there is none
    evidence: float  # the greatest evidence against a label, as a multiple of its limit


def shared_evidence(analysis: Analysis, group: groups.SharedGroup) -> float:
    """Return the evidence that a shared group is planted, as a multiple of the limit."""
    members = group.members[analysis.suspicion[group.members] > CERTAIN]
    counts = np.sort(np.bincount(analysis.content[members], minlength=analysis.classes))
    of_label = float((analysis.images.labels == group.label).sum())
    beyond = float(counts[:-LEADING].sum()) / max(BROAD, BROAD_SHARE * of_label)
    broad = min(beyond, group.strength / LEAST_STRENGTH)
    alike = MOST_APART / max(group.apartness, 1e-12)
    many = float(counts.sum()) / STRONG_MEMBERS
    return max(min(group.strength / STRONG[group.features], many, alike), broad, 0.0)


def compact_evidence(group: groups.Part) -> float:
    """Return the evidence that a compact group is planted, as a multiple of the limit."""
    return min(group.gap / GAP, len(group.members) / COMPACT_MEMBERS)


def split_evidence(parts: Sequence[PartPrediction]) -> list[tuple[float, groups.Part]]:
    """Return the evidence that each smaller part is planted, as a multiple of the limit."""
    evidence = []
    for part in parts:
        size = len(part.split.members)
        next_most = max((other.broad for other in parts if other is not part), default=0)
        alone = part.broad / (SPLIT_ALONE * max(next_most, 1))
        most = min(part.broad / (SPLIT_BROAD * size), alone)
        if part.group is not None:
            sure = part.sure / (SPLIT_SURE * size)
            alike = MOST_APART / max(part.group.apartness, 1e-12)
            most = max(most, min(sure, part.group.strength / SPLIT_STRENGTH, alike))
        evidence.append((max(most, 0.0), part.split))
    return evidence


def unflagged_half_is_planted(analysis: Analysis, label: int, flagged: Bools) -> bool:
    """Say whether of a label's images it is those not flagged, (N,), that were planted.

    A net that never saw the label predicts one or two others for its honest images, and for planted
    ones all that they show. Where it does so for neither part, as when labels were kept, honest
    images lie where those of other labels do.
    """
    labels, classes = analysis.images.labels, analysis.classes
    own = np.flatnonzero(labels == label)
    net = analysis.learned(np.flatnonzero(labels != label), "net of other labels")
    scores = logits(net, analysis.images.images[own])
    scores[:, label] = -np.inf
    content = scores.argmax(1)
    parts = content[flagged[own]], content[~flagged[own]]
    broad = [outside_leading(part, classes) for part in parts]
    if max(broad) > groups.HALF:
        return broad[1] - broad[0] > BROADER
    shares = [np.bincount(part, minlength=classes) / max(1, len(part)) for part in parts]
    total_variation = float(np.abs(shares[0] - shares[1]).sum() / 2)
    least = groups.HALF if total_variation < groups.HALF else PLAINLY
    return groups.nearness_of_others(analysis.patch_features, labels, label, flagged) > least


def accuse(analysis: Analysis) -> Accusation:
    """Accuse the label with most evidence, if it is enough; only its images score 1 or more."""
    scores = analysis.suspicion / (1 + analysis.suspicion)
    shared = [(shared_evidence(analysis, group), group) for group in analysis.groups]
    compact = [(compact_evidence(group), group) for group in analysis.compact]
    parts = [pair for pair in split_evidence(analysis.splits) if pair[0] >= 1]
    in_part, planted = max(parts, key=lambda pair: pair[0], default=(0.0, None))
    by_label = [(size, group.label) for size, group in shared]
    by_label += [(size, group.label) for size, group in compact]
    if planted is not None:  # so large a part makes suspects, and evidence, of other labels too
        by_label = [pair for pair in by_label if pair[1] == planted.label]
    most, label = max(by_label, default=(0.0, -1))
    if planted is not None and most < 1:
        most, label, raised = in_part, planted.label, planted.towards / groups.HALF
    elif most < 1:
        return Accusation(scores, None, most)
    else:
        raised = np.zeros(len(scores))
        of_label = [(size, group) for size, group in shared if group.label == label and size >= 1]
        if of_label:
            strongest = max(of_label, key=lambda pair: pair[0])[1]
            limit = max(LEAST_ALIGNED, strongest.strength / 4)
            raised = (strongest.scores + SUSPICION_WEIGHT * analysis.suspicion) / limit
        for size, small in compact:
            if small.label == label and size >= 1:
                raised = np.maximum(raised, small.towards / groups.HALF)
    own = analysis.images.labels == label
    scores[own] = np.maximum(HONEST * scores, raised)[own]
    flagged = own & (scores >= 1)
    large = LARGE * own.sum() < flagged.sum() < own.sum()
    if large and unflagged_half_is_planted(analysis, label, flagged):
        mirrored = np.maximum(2 - scores, 0)
        mirrored = np.where(flagged, np.minimum(mirrored, HONEST), mirrored)
        scores = np.where(own, mirrored, scores)
    return Accusation(scores, label, most)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingSetScan(Scan):
    """What a scan of a training set found; a score of 1 is the limit, for images and labels."""

    threshold: float = 1.0  # the same for every set, fixed on clean ones
    scores: Floats  # (N,) how suspicious each image is
    flagged: Ints  # places of images, the most suspicious first; none if nothing is established
    by_detector: Mapping[str, Floats]  # (N,) scores of each detector that was asked

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {
            "false_alarm_rate": FALSE_ALARM_RATE,
            "images": len(self.scores),
            "flagged": self.flagged.tolist(),
        }


def scan_training_set(
    images: ImageSet,
    *,
    classes: int,
    architecture: str = "small_cnn",
    epochs: int = 3,
    seed: int = 0,
    trusted: ImageSet | None = None,
    model: nn.Module | None = None,
    detectors: Sequence[str] = DEFAULT_DETECTORS,
    device: torch.device | None = None,
    progress: Progress = SILENT,
) -> TrainingSetScan:
    """Look for planted images with nothing but the training set.

    Args:
        images: the set under suspicion.
        classes: number of classes.
        architecture: name of the nets that are trained for the scan.
        epochs: passes of each of them over the set.
        seed: everything random in the scan is a function of it.
        trusted: images that are known to be clean; needed by no default detector.
        model: a model that was trained on the set; where a detector needs one and it is None,
            one is trained.
        detectors: whose scores are told one by one; the verdict is the same whoever is asked.
        device: where nets are trained.
        progress: where to report.

    Raises:
        UsageError: a detector of that name is not known, or there is no class.
        DataError: a label is none of the classes.
    """
    started = time.process_time()
    asked = {name: TRAINING_SET_DETECTORS[name] for name in detectors}
    reasons = CALIBRATED.reasons(images, classes, "training images")
    accusation, by_detector = Accusation(np.zeros(len(images)), None, 0.0), {}
    compared = not reasons
    if compared:
        analysis = Analysis(
            images=images,
            classes=classes,
            seed=seed,
            architecture=architecture,
            epochs=epochs,
            trusted=trusted,
            model=model,
            device=device,
            progress=progress,
        )
        with progress.task("training set scan", 1 + len(asked)) as task:
            accusation = accuse(analysis)
            task.advance(1)
            for name, detector in asked.items():
                by_detector[name] = detector(analysis)
                task.advance(1, detector=name)
        reasons = _unlike(analysis)
    order = np.argsort(-accusation.scores, kind="stable")
    flagged = order[accusation.scores[order] >= 1.0].astype(np.int64)
    accused = accusation.target_label is not None and not reasons
    return TrainingSetScan(
        verdict="not_established" if reasons else "backdoored" if accused else "nothing_found",
        reasons=reasons,
        scores=accusation.scores,
        flagged=flagged if accused else flagged[:0],
        target_label=accusation.target_label if accused else None,
        score=accusation.evidence if compared else None,
        by_detector=by_detector,
        seconds=time.process_time() - started,
    )


def _unlike(analysis: Analysis) -> tuple[str, ...]:
    """Return what the analysis shows that sets of handwritten digits do not."""
    reasons = []
    read = float((analysis.votes.argmax(1) == analysis.images.labels).mean())
    if read < LEAST_READ:
        told = f"small subsets read {read:.0%} of the images as their label"
        reasons.append(f"{UNLIKE}: {told}, at least {LEAST_READ:.0%}")
    parts = {part.split.label: len(part.split.members) for part in analysis.splits}
    styles = {label for label, size in parts.items() if 2 * size >= max(parts.values())}
    styles |= {group.label for group in analysis.compact if compact_evidence(group) >= 1}
    if len(styles) >= ALIKE_PARTS:
        names = ", ".join(map(str, sorted(styles)))
        reasons.append(f"{UNLIKE}: labels {names} each fall in two, as by templates or styles")
    return tuple(reasons)
