"""Say whether a trained model has a backdoor, towards which label, and show the trigger."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from purpleteam.core.errors import ModelError, UsageError
from purpleteam.core.progress import SILENT, Progress, Task
from purpleteam.data.images import ImageSet
from purpleteam.defences.detection.model._base import (
    MODEL_DETECTORS,
    Evidence,
    ModelDetector,
    Null,
    Scanning,
)
from purpleteam.defences.detection.model.decision import (
    CALIBRATION_NETS,
    FALSE_ALARM_RATE,
    ModelScan,
    decide,
    limit_of,
)
from purpleteam.defences.detection.model.reference import with_reference
from purpleteam.defences.detection.outcome import UNLIKE, Calibrated
from purpleteam.models.devices import device_of, frozen, lay_out, to_batch
from purpleteam.models.guard import guarded
from purpleteam.models.inference import correct, logits

CALIBRATED = Calibrated(
    images=100, of_each=5, share_of_each=0.25, classes=(5, 20), sides=(14, 40), channels=(1, 3)
)
"""Trusted images as they were there, sides and classes with some room."""
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
    guarded(model)  # says what is no classifier, and what to give instead
    if not isinstance(model, nn.Module):
        raise UsageError("a model scan needs gradients: a torch module, not a black box")
    reasons = CALIBRATED.reasons(trusted, classes, "trusted images")
    answered = logits(model, trusted.images[:2]).shape[1] if len(trusted) else classes
    if answered != classes:
        raise ModelError(f"the model knows {answered} classes, not {classes}")
    if not reasons and (right := float(correct(model, trusted).mean())) < LEAST_ACCURACY:
        of = f"{right:.0%} of the {len(trusted)} trusted images right"
        reasons = (f"{UNLIKE}: the model gets {of}, at least {LEAST_ACCURACY:.0%}",)
    if reasons:
        limit = limit_of(false_alarm_rate, len(parts))
        scan = ModelScan(verdict="not_established", reasons=reasons, threshold=limit)
    else:
        images = to_batch(trusted.images, device or device_of(model))
        own = copy.deepcopy(model).to(images.device)
        lay_out(own, images)  # in the order in memory in which convolutions and pools are fastest
        work = Scanning(model=own, images=images, labels=trusted.labels, classes=classes, seed=seed)
        with frozen(own), progress.task("scan the model", len(parts) + 2) as task:
            scan = _scan(work, parts, false_alarm_rate, task)
    return replace(scan, seconds=time.perf_counter() - started)


def _scan(work: Scanning, parts: Sequence[ModelDetector], rate: float, task: Task) -> ModelScan:
    """Ask every detector, and decide."""
    work = with_reference(work)
    task.advance(1)
    evidence = []
    for part in parts:
        found = part.examine(work)
        task.advance(1)
        if found is not None:
            evidence.append(found)
    evidence += joint(evidence)
    limit = limit_of(rate, max(1, len(evidence)))
    if evidence and work.reference is not None:
        scan = decide(work, parts, evidence, limit)
    else:
        why = "no student becomes like the model"
        if not evidence:
            why = "no detector can compare its classes"
        scan = ModelScan(
            verdict="not_established",
            reasons=(f"{UNLIKE}: {why}",),
            threshold=limit,
            evidence=tuple(evidence),
        )
    task.advance(1)
    return scan


def joint(evidence: Sequence[Evidence]) -> list[Evidence]:
    """Return the evidence of the detectors of whole classes taken together, if there are two.

    A warp, for one, also makes its target a little nearer in every other way.
    """
    statistics = [part.statistics for part in evidence if part.source_labels is None]
    if len(statistics) < 2:
        return []
    return [Evidence.of(JOINT, np.mean(statistics, axis=0), JOINT_NULL)]
