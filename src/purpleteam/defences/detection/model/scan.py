"""Say whether a trained model has a backdoor, towards which label, and show the trigger."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from purpleteam.core.errors import DataError, ModelError, UsageError
from purpleteam.core.progress import SILENT, Progress, Task
from purpleteam.data.images import ImageSet
from purpleteam.defences.detection.model._base import (
    MODEL_DETECTORS,
    Evidence,
    ModelDetector,
    Scanning,
)
from purpleteam.defences.detection.model.outliers import Null
from purpleteam.defences.detection.model.reference import distilled
from purpleteam.defences.detection.recovered import RecoveredTrigger
from purpleteam.models.devices import device_of, frozen, lay_out, to_batch
from purpleteam.models.inference import correct, logits

__all__ = ["FALSE_ALARM_RATE", "ModelScan", "scan_model"]

FALSE_ALARM_RATE = 0.03
"""Share of clean models that may be flagged: the p-value below which a model is.

The detectors' null laws were fitted to 46 clean nets of three architectures and three recipes,
after 1 to 80 epochs on MNIST, the embedded digits and coloured digits of 5 or 7 classes. Their
scales were rounded up.
"""

CHANCES = 3
"""So many times as often as by chance a model must be right to be scanned ..."""
MOST_ASKED = 0.5
"""... but no oftener than that."""
SMALLEST = 1e-300
"""A p-value below this one scores as this one."""
JOINT = "joint"
"""Name of the evidence of all detectors of whole classes together."""
JOINT_NULL = Null(location=0.85, scale=0.29, deviation=1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelScan:
    """What a scan says of a model.

    Attributes:
        backdoored: whether a clean model would hardly look so.
        target_label: where the trigger leads; None where there is no backdoor.
        source_labels: the classes it works on; None is all, or no backdoor.
        kind: the detector that says so most strongly, alarm or not; where one that can draw the
            trigger is sure by itself, that one.
        score: -log10 of the p-value; higher is more suspicious.
        threshold: the score from which on a model is flagged.
        p_value: chance that a clean model looks so suspicious to any of the detectors.
        evidence: what each detector found.
        trigger: what was recovered; None where there is no backdoor.
        seconds: how long it took.
    """

    backdoored: bool
    target_label: int | None
    source_labels: tuple[int, ...] | None
    kind: str
    score: float
    threshold: float
    p_value: float
    evidence: tuple[Evidence, ...]
    trigger: RecoveredTrigger | None
    seconds: float = 0.0

    @property
    def per_class(self) -> Mapping[str, NDArray[np.float64]]:
        """Statistics (classes,) by detector; higher is more suspicious."""
        return {one.detector: one.statistics for one in self.evidence}

    def to_json(self) -> dict[str, Any]:
        """Return what a record keeps; numbers and names only."""
        return {
            "backdoored": self.backdoored,
            "target_label": self.target_label,
            "source_labels": None if self.source_labels is None else list(self.source_labels),
            "kind": self.kind,
            "score": self.score,
            "threshold": self.threshold,
            "p_value": self.p_value,
            "seconds": self.seconds,
            "detectors": {one.detector: _row(one) for one in self.evidence},
        }


def scan_model(
    model: nn.Module,
    trusted: ImageSet,
    *,
    classes: int,
    seed: int = 0,
    device: torch.device | None = None,
    detectors: Sequence[ModelDetector] | None = None,
    false_alarm_rate: float = FALSE_ALARM_RATE,
    progress: Progress = SILENT,
) -> ModelScan:
    """Scan a model with all detectors, or with those given; the model is left as it was.

    Args:
        model: maps (N, C, H, W) in [0, 1] to logits (N, classes).
        trusted: clean images with true labels, 100 or more; more than 1,000 add little.
        classes: how many labels the model knows.
        seed: the same seed and model give the same answer.
        device: where to scan; None is where the model is.
        detectors: which to use, with their settings; None is all, as calibrated.
        false_alarm_rate: share of clean models that may be flagged.
        progress: where to report.

    Raises:
        UsageError: fewer than two classes, a rate that is none, no detector, or no gradients.
        DataError: trusted images of fewer than two classes, or of labels that are none.
        ModelError: the model does not take the images, has another number of classes, or gets
            next to none of the trusted images right.
    """
    started = time.perf_counter()
    parts = [part() for part in MODEL_DETECTORS.values()] if detectors is None else detectors
    if not parts or not 0 < false_alarm_rate < 1:
        raise UsageError(f"at least one detector and a rate within (0, 1), not {false_alarm_rate}")
    _check(model, trusted, classes)
    images = to_batch(trusted.images, device or device_of(model))
    work = Scanning(
        model=_own_copy(model, images),
        images=images,
        labels=trusted.labels,
        classes=classes,
        seed=seed,
    )
    with frozen(work.model), progress.task("scan the model", len(parts) + 2) as task:
        student = distilled(work.model, work.images, classes=classes, seed=seed)
        task.advance(1)
        if student is not None:
            student.requires_grad_(False)
        work = replace(work, reference=student)
        scan = _scan(work, parts, false_alarm_rate, task)
    return replace(scan, seconds=time.perf_counter() - started)


def _own_copy(model: nn.Module, images: Tensor) -> nn.Module:
    """Return a copy in the order in memory in which convolutions and pools are fastest."""
    own = copy.deepcopy(model).to(images.device)
    lay_out(own, images)
    return own


def _scan(work: Scanning, parts: Sequence[ModelDetector], rate: float, task: Task) -> ModelScan:
    """Ask every detector; the smallest p-value counts, times the number of p-values."""
    found = []
    for part in parts:
        evidence = part.examine(work)
        task.advance(1)
        if evidence is not None:
            found.append(evidence)
    if not found:
        raise UsageError("none of the detectors can judge a model of so few classes")
    found += joint(found)
    strongest = min(found, key=lambda one: one.p_value)
    p_value = min(1.0, len(found) * strongest.p_value)
    backdoored = p_value <= rate
    told = _telling(parts, found, strongest, rate)
    trigger = _recover(work, parts, found, told) if backdoored else None
    task.advance(1)
    return ModelScan(
        backdoored=backdoored,
        target_label=strongest.target_label if backdoored else None,
        source_labels=told.source_labels if backdoored else None,
        kind=told.detector,
        score=abs(float(np.log10(max(p_value, SMALLEST)))),
        threshold=-float(np.log10(rate)),
        p_value=p_value,
        evidence=tuple(found),
        trigger=trigger,
    )


def _telling(
    parts: Sequence[ModelDetector], found: Sequence[Evidence], strongest: Evidence, rate: float
) -> Evidence:
    """Return the strongest evidence, or the strongest that can draw the trigger if sure alone."""
    drawing = {part.name for part in parts if type(part).recover is not ModelDetector.recover}
    sure = [
        one
        for one in found
        if one.detector in drawing
        and one.target_label == strongest.target_label
        and len(found) * one.p_value <= rate
    ]
    return min(sure, key=lambda one: one.p_value, default=strongest)


def joint(found: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """Return the evidence of the detectors of whole classes taken together, if there are two.

    A warp, for one, also makes its target a little nearer in every other way.
    """
    of_classes = [one for one in found if one.source_labels is None]
    if len(of_classes) < 2:
        return ()
    statistics = np.mean([one.statistics for one in of_classes], axis=0)
    target = int(statistics.argmax())
    return (
        Evidence(
            detector=JOINT,
            statistics=statistics,
            p_value=JOINT_NULL.p_value(float(statistics[target])),
            target_label=target,
            details={},
        ),
    )


def _recover(
    work: Scanning,
    parts: Sequence[ModelDetector],
    found: Sequence[Evidence],
    strongest: Evidence,
) -> RecoveredTrigger | None:
    """Return the trigger by the detector that finds this target easiest and can draw it."""
    target, sources = strongest.target_label, strongest.source_labels
    standing = {one.detector: float(one.statistics[target]) for one in found}
    if sources is not None:
        standing = {strongest.detector: standing[strongest.detector]}
    for part in sorted(parts, key=lambda part: -standing.get(part.name, -np.inf)):
        if part.name in standing:
            trigger = part.recover(work, target, sources)
            if trigger is not None:
                return trigger
    return None


def _check(model: object, trusted: ImageSet, classes: int) -> None:
    if not isinstance(model, nn.Module):
        raise UsageError("a model scan needs gradients: a torch module, not a black box")
    if classes < 2:
        raise UsageError(f"classes must be at least 2, not {classes}")
    present = np.unique(trusted.labels)
    if len(present) < 2:
        raise DataError(f"trusted images must be of at least 2 classes, not {len(present)}")
    if present[0] < 0 or present[-1] >= classes:
        raise DataError(
            f"trusted labels must be from 0 to {classes - 1}, not {present[0]} to {present[-1]}"
        )
    answered = logits(model, trusted.images[:2]).shape[1]
    if answered != classes:
        raise ModelError(f"the model knows {answered} classes, not {classes}")
    right = float(correct(model, trusted).mean())
    if right < (least := min(MOST_ASKED, CHANCES / classes)):
        raise ModelError(
            f"the model gets {right:.0%} of the {len(trusted)} trusted images right and "
            f"{least:.0%} are needed: what has not learned its classes has no backdoor to find"
        )


def _row(one: Evidence) -> dict[str, Any]:
    return {
        "p_value": one.p_value,
        "target_label": one.target_label,
        "source_labels": None if one.source_labels is None else list(one.source_labels),
        "statistics": [None if np.isinf(x) else float(x) for x in one.statistics],
        **one.details,
    }
