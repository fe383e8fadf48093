"""From what the detectors found to a verdict: look again, and set aside what is near by nature.

What stands out is mostly the luck of one student and one search. An accusation therefore needs a
trigger that stands out in most looks, each with another student, and two are enough where they
agree. What stands out by nature does so in the student as well: a label whose trigger works there
too is set aside, for the detector that found it, and what stands out next is judged alike.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from purpleteam.defences.detection.model._base import Evidence, ModelDetector, Scanning
from purpleteam.defences.detection.model._verdict import (
    ModelScan,
    agree,
    judged,
    p_value_of,
)
from purpleteam.defences.detection.model.nature import NATURE, followed, without
from purpleteam.defences.detection.model.reference import distilled
from purpleteam.defences.detection.recovered import RecoveredTrigger

__all__ = ["decide", "with_student"]

FRESH = 100_000
"""Added to the seed for each further look, so that no user's seed is another's second look."""
NATURAL_LABELS = 4
"""After so many natural labels nothing is established: classes so near to each other hide any."""


def decide(
    work: Scanning, parts: Sequence[ModelDetector], found: Sequence[Evidence], limit: float
) -> ModelScan:
    """Return the verdict on what the detectors found; `work` has its student.

    Args:
        work: the model under scan.
        parts: the detectors.
        found: what they found, and the same taken together.
        limit: the standing from which on a model is flagged.
    """
    drawing = {part.name: part for part in parts if _draws(part)}
    left, natural = list(found), list[tuple[int, str]]()
    works = follows = None
    scan = _judged(work, drawing, left, limit)
    while scan.verdict == "backdoored":
        strongest = _strongest(drawing, left)
        label, sources = strongest.target_label, strongest.source_labels
        part = drawing[strongest.detector]
        works, follows = followed(work, part.recover(work, label, sources))
        if follows is None or works is None or follows <= NATURE * works:
            shown = _shown(work, parts, left, strongest)
            scan = replace(scan, target_label=label, source_labels=sources, trigger=shown)
            break
        natural.append((label, strongest.detector))
        own = without(label, strongest, part.null)
        left = [own if one is strongest else one for one in left]
        scan = _judged(work, drawing, left, limit)
        if scan.verdict == "backdoored" and len(natural) == NATURAL_LABELS:
            names = ", ".join(str(label) for label, _ in natural)
            why = f"labels {names} stand out, and all by nature: a student follows their triggers"
            scan = replace(scan, verdict="not_established", reasons=(why,))
    return replace(
        scan,
        evidence=tuple(found),
        trigger_success=works,
        student_success=follows,
        set_aside=tuple(natural),
    )


def with_student(work: Scanning) -> Scanning:
    """Return the work with a student of the model, if one becomes like it."""
    student = distilled(work.model, work.images, classes=work.classes, seed=work.seed)
    if student is not None:
        student.requires_grad_(False)
    return replace(work, reference=student)


def _judged(
    work: Scanning, drawing: Mapping[str, ModelDetector], found: Sequence[Evidence], limit: float
) -> ModelScan:
    """Return the verdict on what stands out most, after as many looks as it takes."""
    strongest = _strongest(drawing, found)
    accuses = strongest.detector in drawing
    standings = [strongest.standing]
    while accuses and not agree(standings, limit):
        part = drawing[strongest.detector]
        standings.append(_again(work, part, strongest.target_label, len(standings)))
    score = statistics.median_low(standings)
    verdict, reasons = judged(score, limit, strongest if accuses else None, found)
    return ModelScan(
        verdict=verdict,
        reasons=reasons,
        kind=strongest.detector,
        score=score,
        threshold=limit,
        p_value=p_value_of(score, len(found)),
        looks=tuple(standings),
    )


def _strongest(drawing: Mapping[str, ModelDetector], found: Sequence[Evidence]) -> Evidence:
    """Return what stands out most, by a detector that draws a trigger if there is one."""
    accusing = [one for one in found if one.detector in drawing]
    return max(accusing or found, key=lambda one: one.standing)


def _draws(part: ModelDetector) -> bool:
    return type(part).recover is not ModelDetector.recover


def _again(work: Scanning, part: ModelDetector, label: int, look: int) -> float:
    """Return where a label stands when it is looked at with other random numbers."""
    fresh = replace(work, seed=work.seed + look * FRESH, reference=None)
    evidence = part.examine(with_student(fresh) if part.compares else fresh)
    return -math.inf if evidence is None else part.null.standing(float(evidence.statistics[label]))


def _shown(
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
