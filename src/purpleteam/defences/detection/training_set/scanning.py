"""The scan of a training set: every detector's ranking, one combined, and a verdict."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from purpleteam.core.errors import DataError, UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.images import ImageSet, check_is_set
from purpleteam.defences.detection.outcome import UNLIKE, Calibrated, Verdict, accused
from purpleteam.defences.detection.training_set._base import TRAINING_SET_DETECTORS
from purpleteam.defences.detection.training_set._survey import Survey
from purpleteam.defences.detection.training_set._verdict import (
    FALSE_ALARM_RATE,
    compact_evidence,
    judge,
)

__all__ = ["TrainingSetScan", "scan_training_set"]

DEFAULT_DETECTORS = (
    "small_subsets",
    "label_errors",
    "clean_reference",
    "shared_trigger",
    "compact_group",
    "split_label",
)
"""Those that the verdict is made from; the others need a net more, and are there to compare."""
CALIBRATED = Calibrated(
    images=300,
    of_each=50,
    share_of_each=0.2,
    classes=(6, 20),
    sides=(20, 40),
    channels=(1,),
)
"""Handwritten digits: subsets of MNIST and the embedded ones, with some room."""
LEAST_READ = 0.85
"""Share of the images that small subsets read as their label: 0.89 in a thousand of MNIST."""
ALIKE_PARTS = 3
"""So many labels that each have a compact group, or fall in two by parts at least half as large as
the largest, have styles: a trigger does that to one label, a few templates to most of them.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingSetScan:
    """What a scan found.

    Attributes:
        scores: (N,) how suspicious each image is; flagged is what reaches the threshold, and
            nothing where nothing is established.
        threshold: the same for every data set, fixed on clean ones.
        flagged: places of the flagged images, the most suspicious first.
        verdict: what is established: backdoored where a label stands accused.
        reasons: why nothing is established, a line each; none where something is.
        target_label: which label stands accused; None where none does.
        score: the evidence against it, or the most there is against any; 1 is the limit. None
            where nothing was compared.
        false_alarm_rate: stated share of clean sets in which some label is accused.
        by_detector: (N,) scores of each detector that was asked.
        seconds: CPU time of the process for the whole scan.
    """

    scores: NDArray[np.float64]
    threshold: float
    flagged: NDArray[np.int64]
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    target_label: int | None
    score: float | None
    false_alarm_rate: float
    by_detector: Mapping[str, NDArray[np.float64]]
    seconds: float

    @property
    def backdoored(self) -> bool | None:
        """Whether a label stands accused; None where nothing is established."""
        return accused(self.verdict)

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `purple detect --training-set --json`."""
        return {
            "verdict": self.verdict,
            "backdoored": self.backdoored,
            "reasons": list(self.reasons),
            "target_label": self.target_label,
            "score": self.score,
            "threshold": self.threshold,
            "false_alarm_rate": self.false_alarm_rate,
            "seconds": self.seconds,
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
    detectors: tuple[str, ...] = DEFAULT_DETECTORS,
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
    asked = [TRAINING_SET_DETECTORS[name]() for name in detectors]
    _check(images, classes)
    reasons = CALIBRATED.reasons(images, classes, "training images")
    if reasons:
        return TrainingSetScan(
            verdict="not_established",
            reasons=reasons,
            scores=np.zeros(len(images)),
            threshold=1.0,
            flagged=np.zeros(0, np.int64),
            target_label=None,
            score=None,
            false_alarm_rate=FALSE_ALARM_RATE,
            by_detector={},
            seconds=time.process_time() - started,
        )
    survey = Survey(
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
        verdict = judge(survey)
        task.advance(1)
        by_detector = {}
        for detector in asked:
            if detector.applies(survey):
                by_detector[detector.name] = detector.scores(survey)
            task.advance(1, detector=detector.name)
    order = np.argsort(-verdict.scores, kind="stable")
    flagged = order[verdict.scores[order] >= 1.0].astype(np.int64)
    found: Verdict = "nothing_found" if verdict.target_label is None else "backdoored"
    reasons = _unlike(survey)
    if reasons:
        found, flagged = "not_established", flagged[:0]
    return TrainingSetScan(
        verdict=found,
        reasons=reasons,
        scores=verdict.scores,
        threshold=1.0,
        flagged=flagged,
        target_label=None if reasons else verdict.target_label,
        score=verdict.evidence,
        false_alarm_rate=FALSE_ALARM_RATE,
        by_detector=by_detector,
        seconds=time.process_time() - started,
    )


def _unlike(survey: Survey) -> tuple[str, ...]:
    """Return what the survey shows that sets of handwritten digits do not."""
    found = []
    read = float((survey.votes.argmax(1) == survey.images.labels).mean())
    if read < LEAST_READ:
        found.append(
            f"{UNLIKE}: small subsets read {read:.0%} of the images as their label, "
            f"at least {LEAST_READ:.0%}"
        )
    parts = {part.split.label: len(part.split.members) for part in survey.splits}
    styles = {label for label, size in parts.items() if 2 * size >= max(parts.values())}
    styles |= {group.label for group in survey.compact if compact_evidence(group) >= 1}
    if len(styles) >= ALIKE_PARTS:
        names = ", ".join(map(str, sorted(styles)))
        found.append(f"{UNLIKE}: labels {names} each fall in two, as by templates or styles")
    return tuple(found)


def _check(images: ImageSet, classes: int) -> None:
    check_is_set(images)
    if classes < 1:
        raise UsageError(f"classes must be at least 1, not {classes}")
    outside = images.labels[(images.labels < 0) | (images.labels >= classes)]
    if len(outside):
        raise DataError(f"label {outside[0]} is none of the {classes} classes")
