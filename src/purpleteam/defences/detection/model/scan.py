"""Say whether a trained model has a backdoor, towards which label, and show the trigger."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
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
from purpleteam.defences.detection.model._verdict import (
    CALIBRATION_NETS,
    FALSE_ALARM_RATE,
    ModelScan,
    agree,
    judged,
    limit_of,
    p_value_of,
)
from purpleteam.defences.detection.model.nature import NATURE, followed, without
from purpleteam.defences.detection.model.outliers import Null
from purpleteam.defences.detection.model.reference import distilled
from purpleteam.defences.detection.outcome import UNLIKE, Calibrated
from purpleteam.defences.detection.recovered import RecoveredTrigger
from purpleteam.models.devices import device_of, frozen, lay_out, to_batch
from purpleteam.models.inference import correct, logits

__all__ = ["scan_model"]

CALIBRATED = Calibrated(
    images=100,
    of_each=5,
    share_of_each=0.25,
    classes=(5, 20),
    sides=(14, 40),
    channels=(1, 3),
)
"""Trusted images as they were there, sides and classes with some room."""
FRESH = 100_000
"""Added to the seed for each further look, so that no user's seed is another's second look."""
LEAST_ACCURACY = 0.8
"""A model that is right less often on trusted images was not among the calibration's."""
JOINT = "joint"
"""Name of the evidence of all detectors of whole classes together."""
JOINT_NULL = Null(location=0.85, scale=0.29, deviation=1.0)


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
        UsageError: no class, no detector, no gradients, or a rate that is none or smaller than
            the calibration supports.
        DataError: trusted images of labels that are none.
        ModelError: the model does not take the images, or has another number of classes.
    """
    started = time.perf_counter()
    parts = [part() for part in MODEL_DETECTORS.values()] if detectors is None else detectors
    floor = 1 / (CALIBRATION_NETS + 1)
    if not parts or not floor <= false_alarm_rate < 1:
        raise UsageError(
            f"a scan needs at least one detector and a rate of {floor:.3g} to 1, as "
            f"{CALIBRATION_NETS} calibration nets support no smaller one, not {false_alarm_rate}"
        )
    _check(model, trusted, classes)
    reasons = CALIBRATED.reasons(trusted, classes, "trusted images")
    reasons = reasons or _unlearned(model, trusted)
    if reasons:
        return ModelScan(
            verdict="not_established",
            reasons=reasons,
            threshold=limit_of(false_alarm_rate, len(parts)),
            seconds=time.perf_counter() - started,
        )
    images = to_batch(trusted.images, device or device_of(model))
    work = Scanning(
        model=_own_copy(model, images),
        images=images,
        labels=trusted.labels,
        classes=classes,
        seed=seed,
    )
    with frozen(work.model), progress.task("scan the model", len(parts) + 2) as task:
        scan = _scan(work, parts, false_alarm_rate, task)
    return replace(scan, seconds=time.perf_counter() - started)


def _own_copy(model: nn.Module, images: Tensor) -> nn.Module:
    """Return a copy in the order in memory in which convolutions and pools are fastest."""
    own = copy.deepcopy(model).to(images.device)
    lay_out(own, images)
    return own


def _scan(work: Scanning, parts: Sequence[ModelDetector], rate: float, task: Task) -> ModelScan:
    """Ask every detector, and those that suspect a label again, each time with another student.

    What stands out is mostly the luck of one student and one search. An accusation therefore
    needs a trigger that stands out in most looks, and two are enough where they agree.
    What stands out by nature does so in the student as well: a label whose trigger works there too
    is set aside.
    """
    work = _with_student(work)
    task.advance(1)
    found = []
    for part in parts:
        evidence = part.examine(work)
        task.advance(1)
        if evidence is not None:
            found.append(evidence)
    found += joint(found)
    limit = limit_of(rate, max(1, len(found)))
    if not found or work.reference is None:
        why = (
            "no student becomes like the model" if found else "no detector can compare its classes"
        )
        return ModelScan(
            verdict="not_established",
            reasons=(f"{UNLIKE}: {why}",),
            threshold=limit,
            evidence=tuple(found),
        )
    drawing = {part.name: part for part in parts if _draws(part)}
    accusing = [one for one in found if one.detector in drawing]
    strongest = max(accusing or found, key=lambda one: one.standing)
    standings = [strongest.standing]
    while accusing and not agree(standings, limit):
        part = drawing[strongest.detector]
        standings.append(_again(work, part, strongest.target_label, len(standings)))
    score = statistics.median_low(standings)
    verdict, reasons = judged(score, limit, strongest if accusing else None, found)
    scan = ModelScan(
        verdict=verdict,
        reasons=reasons,
        kind=strongest.detector,
        score=score,
        threshold=limit,
        p_value=p_value_of(score, len(found)),
        looks=tuple(standings),
        evidence=tuple(found),
    )
    if verdict == "backdoored":
        scan = _opened(scan, work, parts, strongest)
    task.advance(1)
    return scan


def _opened(
    scan: ModelScan, work: Scanning, parts: Sequence[ModelDetector], strongest: Evidence
) -> ModelScan:
    """Return the scan with the trigger, or without the label that is near by nature.

    What is tried in the student is the trigger of the detector that accuses, since others may find
    a natural one towards the same label; what is shown is the trigger that was found easiest.
    """
    label, sources = strongest.target_label, strongest.source_labels
    (accuser,) = (part for part in parts if part.name == strongest.detector)
    works, follows = followed(work, accuser.recover(work, label, sources))
    scan = replace(scan, trigger_success=works, student_success=follows)
    if follows is None or works is None or follows <= NATURE * works:
        shown = _recover(work, parts, scan.evidence, strongest)
        return replace(scan, target_label=label, source_labels=sources, trigger=shown)
    own = without(label, strongest, accuser.null)
    rest = [own if one is strongest else one for one in scan.evidence]
    drawing = [part.name for part in parts if _draws(part)]
    left = max((one for one in rest if one.detector in drawing), key=lambda one: one.standing)
    verdict, reasons = judged(left.standing, scan.threshold, left, rest)
    if verdict == "backdoored":
        verdict = "not_established"
        reasons = (
            f"label {left.target_label} stands at {left.standing:.3g} by {left.detector}, but "
            f"label {label} stands out too, and by nature: a student follows on {follows:.0%}",
        )
    return replace(
        scan,
        verdict=verdict,
        reasons=reasons,
        kind=left.detector,
        score=left.standing,
        p_value=p_value_of(left.standing, len(rest)),
        looks=(left.standing,),
        natural_label=label,
    )


def _draws(part: ModelDetector) -> bool:
    return type(part).recover is not ModelDetector.recover


def _with_student(work: Scanning) -> Scanning:
    student = distilled(work.model, work.images, classes=work.classes, seed=work.seed)
    if student is not None:
        student.requires_grad_(False)
    return replace(work, reference=student)


def _again(work: Scanning, part: ModelDetector, label: int, look: int) -> float:
    """Return where a label stands when it is looked at with other random numbers."""
    fresh = replace(work, seed=work.seed + look * FRESH, reference=None)
    evidence = part.examine(_with_student(fresh) if part.compares else fresh)
    return -math.inf if evidence is None else part.null.standing(float(evidence.statistics[label]))


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
            standing=JOINT_NULL.standing(float(statistics[target])),
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
    if classes < 1:
        raise UsageError(f"classes must be at least 1, not {classes}")
    outside = trusted.labels[(trusted.labels < 0) | (trusted.labels >= classes)]
    if len(outside):
        raise DataError(f"trusted labels must be from 0 to {classes - 1}, not {outside[0]}")
    if len(trusted):
        answered = logits(model, trusted.images[:2]).shape[1]
        if answered != classes:
            raise ModelError(f"the model knows {answered} classes, not {classes}")


def _unlearned(model: nn.Module, trusted: ImageSet) -> tuple[str, ...]:
    """Say where the model gets fewer trusted images right than any that was calibrated on."""
    right = float(correct(model, trusted).mean())
    if right >= LEAST_ACCURACY:
        return ()
    return (
        f"{UNLIKE}: the model gets {right:.0%} of the {len(trusted)} trusted images right, "
        f"at least {LEAST_ACCURACY:.0%}",
    )
