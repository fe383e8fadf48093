"""From what the detectors found to a verdict: repeat the look, set natural backdoors aside, decide.

What stands out is mostly the luck of one reference model and one search. An accusation therefore
needs a trigger that stands out in most looks, each with another reference, and two are enough where
they agree. A natural backdoor, a class that is near by nature, stands out in the reference as well:
a label whose trigger works there too is set aside, for the detector that found it, and what stands
out next is decided in the same way.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.defences.detection.model._base import Evidence, ModelDetector, Scanning
from purpleteam.defences.detection.model.reference import (
    NATURAL_SHARE,
    success_in_both,
    with_reference,
)
from purpleteam.defences.detection.outcome import Scan, Verdict
from purpleteam.defences.detection.recovered import RecoveredTrigger

FALSE_ALARM_RATE = 0.03  # share of clean models that may be flagged
FRESH = 100_000
"""Added to the seed for each further look, so that no user's seed is another's second look."""
NATURAL_LABELS = 4
"""After so many natural labels nothing is established: classes so near to each other hide any."""
LOOKS = 5  # A label under suspicion is looked at so often at most
MARGIN = 1.5
"""Standings this close below the limit are neither an accusation nor a clearance.

It covers by how much looks at clean nets differ from seed to seed.
"""
CALIBRATION_NETS = 46
"""Clean nets that the detectors' null laws were held against: results/calibration.json.

They are of three architectures and two recipes, after 1 to 60 epochs on MNIST, the embedded digits,
coloured digits of 5 or 7 classes and drawn shapes. N clean nets, none of them accused, support no
smaller chance than 1 in N + 1: no p-value is smaller.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelScan(Scan):
    """What a scan says of a model.

    The score is the standing that the accusing detector gives the label, in scales of its null
    law: the median of the looks.
    """

    source_labels: tuple[int, ...] | None = None
    """The classes that the trigger works on; None is all, or no backdoor."""
    kind: str | None = None
    """Of the detectors that draw a trigger, the one with the highest standing, alarm or not."""
    p_value: float | None = None
    """Upper bound of the chance that a clean model looks so suspicious to any of the detectors,
    and never less than the calibration supports."""
    looks: tuple[float, ...] = ()
    """The standing in each look; further ones with another reference and other searches."""
    evidence: tuple[Evidence, ...] = ()
    """What each detector found at first; one that could not compare is left out."""
    trigger: RecoveredTrigger | None = None
    trigger_success: float | None = None
    """Share of the trusted images of its sources that the accusing detector's trigger sends to
    the label, at the least of its strength that moves half of them."""
    student_success: float | None = None
    """The same in the distilled reference."""
    set_aside: tuple[tuple[int, str], ...] = ()
    """Natural backdoors: labels that stood out, each with the detector to which it did, and whose
    trigger moves the reference too."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `purple detect --json`."""
        names = ("kind", "p_value", "trigger_success", "student_success")
        return (
            super().to_json()
            | {name: getattr(self, name) for name in names}
            | {
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
        )


def _finite(values: Sequence[float] | NDArray[np.float64]) -> list[float | None]:
    return [None if math.isinf(value) else float(value) for value in values]


def limit_of(rate: float, tests: int) -> float:
    """Return the standing that one of so many Gumbel laws exceeds with at most this chance."""
    return -math.log(-math.log1p(-rate / tests))


def settled(standings: Sequence[float], limit: float) -> bool:
    """Say whether no further look is needed.

    None is where nothing is suspicious, or two looks agree, or most of three do, and what they
    say together is not too close to the limit to be called.
    """
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
    """Return the verdict on what the detectors found, each by itself and all taken together.

    `work` has its reference; from a standing of `limit` on a model is flagged.
    """
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
        in_model, in_reference = success_in_both(work, detector.recover(work, label, sources))
        if in_reference is None or in_model is None or in_reference <= NATURAL_SHARE * in_model:
            trigger = _easiest_trigger(work, detectors, left, strongest)
            scan = replace(scan, target_label=label, source_labels=sources, trigger=trigger)
            break
        natural.append((label, strongest.detector))
        others = strongest.statistics.copy()
        others[label] = -math.inf
        kept = {"sources": strongest.sources, "details": strongest.details}
        rest = Evidence.of(strongest.detector, others, detector.null, **kept)
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
    work: Scanning,
    drawing: Mapping[str, ModelDetector],
    evidence: Sequence[Evidence],
    limit: float,
) -> tuple[Evidence, ModelScan]:
    """Return what stands out most, by a detector that draws a trigger if there is one.

    Beside it is the verdict on it, after as many looks as it takes.
    """
    accusing = [part for part in evidence if part.detector in drawing]
    strongest = max(accusing or evidence, key=lambda part: part.standing)
    detector = drawing.get(strongest.detector)
    standings = [strongest.standing]
    while detector is not None and not settled(standings, limit):
        fresh = replace(work, seed=work.seed + len(standings) * FRESH, reference=None)
        again = detector.examine(with_reference(fresh) if detector.compares else fresh)
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
    for detector in sorted(asked, key=lambda detector: -standing[detector.name]):
        trigger = detector.recover(work, target, sources)
        if trigger is not None:
            return trigger
    return None
