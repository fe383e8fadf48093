"""Say whether a trained model has a backdoor, towards which label, and show the trigger.

An accusation needs a trigger that stands out in most looks, each with another reference model and
search. A label whose trigger works in the reference too is natural: it is set aside, and what
stands out next is decided alike.
"""

import copy
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from purpleteam.core.arrays import Floats
from purpleteam.core.errors import ModelError, UsageError
from purpleteam.core.progress import SILENT, Progress, Task
from purpleteam.data.images import ImageSet
from purpleteam.defences.detection.model import reference
from purpleteam.defences.detection.model._base import (
    MODEL_DETECTORS,
    Evidence,
    ModelDetector,
    Null,
    Scanning,
)
from purpleteam.defences.detection.outcome import UNLIKE, Calibrated, Scan, Verdict
from purpleteam.defences.detection.recovered import RecoveredTrigger
from purpleteam.models.devices import device_of, frozen, lay_out, to_batch
from purpleteam.models.guard import guarded
from purpleteam.models.inference import correct, logits

FALSE_ALARM_RATE = 0.03  # share of clean models that may be flagged
FRESH = 100_000  # added to the seed for each further look: no user's seed is another's second look
NATURAL_LABELS = 4  # after as many natural labels nothing is established: near classes hide any
LOOKS = 5  # at most, at a label under suspicion
MARGIN = 1.5
"""Standings this close below the limit are neither an accusation nor a clearance: looks at clean
nets differ by as much from seed to seed."""
CALIBRATION_NETS = 46
"""Clean nets that the detectors' null laws were held against: results/calibration.json.

They are of three architectures and two recipes, after 1 to 60 epochs on MNIST, the embedded digits,
coloured digits of 5 or 7 classes and drawn shapes. N clean nets, none of them accused, support no
smaller p-value than 1 / (N + 1).
"""
# trusted images as they were there, sides and classes with some room
CALIBRATED = Calibrated(
    images=100, of_each=5, share_of_each=0.25, classes=(5, 20), sides=(14, 40), channels=(1, 3)
)
LEAST_ACCURACY = 0.8  # on trusted images: no net of the calibration's was worse
JOINT = "joint"  # name of the evidence of all detectors of whole classes together
JOINT_NULL = Null(location=0.85, scale=0.29, deviation=1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelScan(Scan):
    """What a scan says of a model; the score is the median standing of its looks."""

    source_labels: tuple[int, ...] | None = None  # that the trigger works on; None is all, or none
    kind: str | None = None  # of the detectors that draw a trigger, the one of highest standing
    p_value: float | None = None  # upper bound, for a clean model and all detectors
    looks: tuple[float, ...] = ()  # the standing in each, with another reference and searches
    evidence: tuple[Evidence, ...] = ()  # of each detector that could compare, at first
    trigger: RecoveredTrigger | None = None
    trigger_success: float | None = None
    """Share of its sources' trusted images that the trigger sends to the label, at the least of
    its strength that moves half of them."""
    student_success: float | None = None  # the same in the distilled reference
    set_aside: tuple[tuple[int, str], ...] = ()
    """Natural backdoors: labels, each with the detector to which it stood out, whose trigger moves
    the reference too."""

    def to_json(self) -> dict[str, Any]:
        names = ("kind", "p_value", "trigger_success", "student_success")
        return {
            **super().to_json(),
            **{name: getattr(self, name) for name in names},
            "source_labels": None if self.source_labels is None else list(self.source_labels),
            "looks": _finite(self.looks),
            "set_aside": [{"label": label, "kind": kind} for label, kind in self.set_aside],
            "detectors": {
                part.detector: {
                    "standing": _finite([part.standing])[0],
                    "target_label": part.target_label,
                    "source_labels": part.source_labels and list(part.source_labels),
                    "statistics": _finite(part.statistics),
                    **part.details,
                }
                for part in self.evidence
            },
        }


def _finite(values: Sequence[float] | Floats) -> list[float | None]:
    return [None if math.isinf(value) else float(value) for value in values]


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
        images = to_batch(trusted.images[:], device or device_of(model))
        own = copy.deepcopy(model).to(images.device)
        lay_out(own, images)  # in the order in memory in which convolutions and pools are fastest
        work = Scanning(model=own, images=images, labels=trusted.labels, classes=classes, seed=seed)
        with frozen(own), progress.task("scan the model", len(parts) + 2) as task:
            scan = _scan(work, parts, false_alarm_rate, task)
    return replace(scan, seconds=time.perf_counter() - started)


def _scan(work: Scanning, parts: Sequence[ModelDetector], rate: float, task: Task) -> ModelScan:
    """Ask every detector, and decide."""
    work = reference.with_reference(work)
    task.advance(1)
    evidence = []
    for part in parts:
        if (examined := part.examine(work)) is not None:
            evidence.append(examined)
        task.advance(1)
    evidence += joint(evidence)
    limit = limit_of(rate, max(1, len(evidence)))
    if evidence and work.reference is not None:
        scan = decide(work, parts, evidence, limit)
    else:
        lack = "student becomes like the model" if evidence else "detector can compare its classes"
        reasons, kept = (f"{UNLIKE}: no {lack}",), tuple(evidence)
        scan = ModelScan(verdict="not_established", reasons=reasons, threshold=limit, evidence=kept)
    task.advance(1)
    return scan


def joint(evidence: Sequence[Evidence]) -> list[Evidence]:
    """Return the evidence of the detectors of whole classes together, if there are two."""
    statistics = [part.statistics for part in evidence if part.source_labels is None]
    if len(statistics) < 2:
        return []
    return [Evidence.of(JOINT, np.mean(statistics, axis=0), JOINT_NULL)]


def limit_of(rate: float, tests: int) -> float:
    """Return the standing that one of as many Gumbel laws exceeds with at most this chance."""
    return -math.log(-math.log1p(-rate / tests))


def settled(standings: Sequence[float], limit: float) -> bool:
    """Say whether no further look is needed: nothing is suspicious, or most looks clearly agree."""
    if len(standings) == 1:
        return standings[0] < limit - MARGIN
    if len(standings) == 2 and len({standing >= limit for standing in standings}) == 2:
        return False
    close = limit - MARGIN <= statistics.median_low(standings) < limit
    return len(standings) == LOOKS or not close


def verdict_on(
    score: float, limit: float, accusing: Evidence | None, evidence: Sequence[Evidence]
) -> tuple[Verdict, tuple[str, ...]]:
    """Return the verdict on a score, and the reasons where it is not established."""
    if accusing is not None and score >= limit:
        return "backdoored", ()
    if accusing is not None and score >= limit - MARGIN:
        close = f"label {accusing.target_label} stands at {score:.3g} by {accusing.detector}"
        return "not_established", (f"too close to call: {close}, flagged from {limit:.3g}",)
    lone = max(evidence, key=lambda part: part.standing)
    if lone.standing >= limit and (accusing is None or lone.detector != accusing.detector):
        label = lone.target_label
        return "not_established", (f"label {label} stands out by {lone.detector}, without trigger",)
    return "nothing_found", ()


def decide(
    work: Scanning, detectors: Sequence[ModelDetector], evidence: Sequence[Evidence], limit: float
) -> ModelScan:
    """Return the verdict on what the detectors found, in which `limit` is a standing."""
    drawing = {
        detector.name: detector
        for detector in detectors
        if type(detector).recover is not ModelDetector.recover
    }
    left, natural = list(evidence), list[tuple[int, str]]()
    in_model = in_reference = None
    strongest, scan = _look(work, drawing, left, limit)
    while scan.verdict == "backdoored":
        label, sources = strongest.target_label, strongest.source_labels
        detector = drawing[strongest.detector]
        recovered = detector.recover(work, label, sources)
        in_model, in_reference = reference.success_in_both(work, recovered)
        most = reference.NATURAL_SHARE * (in_model or 0.0)
        if in_reference is None or in_reference <= most:
            trigger = _easiest_trigger(work, detectors, left, strongest)
            scan = replace(scan, target_label=label, source_labels=sources, trigger=trigger)
            break
        natural.append((label, strongest.detector))
        others = strongest.statistics.copy()
        others[label] = -math.inf
        more = {"sources": strongest.sources, "details": strongest.details}
        rest = Evidence.of(strongest.detector, others, detector.null, **more)
        left = [rest if part is strongest else part for part in left]
        strongest, scan = _look(work, drawing, left, limit)
        if scan.verdict == "backdoored" and len(natural) == NATURAL_LABELS:
            names = ", ".join(str(label) for label, _ in natural)
            why = f"labels {names} stand out, and all by nature: a student follows their triggers"
            scan = replace(scan, verdict="not_established", reasons=(why,))
    return replace(
        scan,
        evidence=tuple(evidence),
        trigger_success=in_model,
        student_success=in_reference,
        set_aside=tuple(natural),
    )


def _look(
    work: Scanning, drawing: Mapping[str, ModelDetector], evidence: Sequence[Evidence], limit: float
) -> tuple[Evidence, ModelScan]:
    """Return what stands out most, by a drawing detector if any, and the verdict on it."""
    accusing = [part for part in evidence if part.detector in drawing]
    strongest = max(accusing or evidence, key=lambda part: part.standing)
    detector = drawing.get(strongest.detector)
    standings = [strongest.standing]
    while detector is not None and not settled(standings, limit):
        fresh = replace(work, seed=work.seed + len(standings) * FRESH, reference=None)
        again = detector.examine(reference.with_reference(fresh) if detector.compares else fresh)
        label = strongest.target_label
        standings.append(
            -math.inf if again is None else detector.null.standing(float(again.statistics[label]))
        )
    score = statistics.median_low(standings)
    verdict, reasons = verdict_on(score, limit, strongest if detector else None, evidence)
    # the chance of such a standing in a clean model, no less than the nets support
    tail = -math.expm1(-math.exp(min(-score, 700.0)))
    return strongest, ModelScan(
        verdict=verdict,
        reasons=reasons,
        kind=strongest.detector,
        score=score,
        threshold=limit,
        p_value=min(1.0, max(len(evidence) * tail, 1 / (CALIBRATION_NETS + 1))),
        looks=tuple(standings),
    )


def _easiest_trigger(
    work: Scanning,
    detectors: Sequence[ModelDetector],
    evidence: Sequence[Evidence],
    strongest: Evidence,
) -> RecoveredTrigger | None:
    """Return the trigger by the detector that finds this target easiest and can draw it."""
    target, sources = strongest.target_label, strongest.source_labels
    standing = {part.detector: float(part.statistics[target]) for part in evidence}
    if sources is not None:
        standing = {strongest.detector: standing[strongest.detector]}
    asked = [detector for detector in detectors if detector.name in standing]
    asked.sort(key=lambda detector: -standing[detector.name])
    triggers = (detector.recover(work, target, sources) for detector in asked)
    return next((trigger for trigger in triggers if trigger is not None), None)
