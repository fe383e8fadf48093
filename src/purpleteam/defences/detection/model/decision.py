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

from purpleteam.defences.detection.model._base import Evidence, ModelDetector, Null, Scanning
from purpleteam.defences.detection.model.reference import (
    NATURAL_SHARE,
    success_in_both,
    with_reference,
)
from purpleteam.defences.detection.outcome import Verdict, is_backdoored
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
class ModelScan:
    """What a scan says of a model; what was not compared or recovered is None or empty."""

    verdict: Verdict
    """What is established: backdoored where a clean model would hardly look so."""
    reasons: tuple[str, ...] = ()
    """Why nothing is established, a line each; none where something is."""
    target_label: int | None = None
    """Where the trigger leads."""
    source_labels: tuple[int, ...] | None = None
    """The classes it works on; None is all, or no backdoor."""
    kind: str | None = None
    """Of the detectors that draw a trigger, the one with the highest standing, alarm or not."""
    score: float | None = None
    """The standing that it gives the label, in scales of its null law; the median of the looks."""
    threshold: float
    """The score from which on a model is flagged."""
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
    seconds: float = 0.0

    @property
    def backdoored(self) -> bool | None:
        """Whether there is a backdoor; None where nothing is established."""
        return is_backdoored(self.verdict)

    @property
    def per_class(self) -> Mapping[str, NDArray[np.float64]]:
        """Statistics (classes,) by detector; higher is more suspicious."""
        return {part.detector: part.statistics for part in self.evidence}

    def to_json(self) -> dict[str, Any]:
        """Return what a record keeps; numbers and names only."""
        return {
            "verdict": self.verdict,
            "backdoored": self.backdoored,
            "reasons": list(self.reasons),
            "target_label": self.target_label,
            "source_labels": None if self.source_labels is None else list(self.source_labels),
            "kind": self.kind,
            "score": self.score,
            "threshold": self.threshold,
            "p_value": self.p_value,
            "looks": [None if np.isinf(look) else look for look in self.looks],
            "trigger_success": self.trigger_success,
            "student_success": self.student_success,
            "set_aside": [{"label": label, "kind": kind} for label, kind in self.set_aside],
            "seconds": self.seconds,
            "detectors": {
                part.detector: {
                    "standing": None if np.isinf(part.standing) else part.standing,
                    "target_label": part.target_label,
                    "source_labels": part.source_labels and list(part.source_labels),
                    "statistics": [None if np.isinf(x) else float(x) for x in part.statistics],
                    **part.details,
                }
                for part in self.evidence
            },
        }


def limit_of(rate: float, tests: int) -> float:
    """Return the standing that one of so many Gumbel laws exceeds with at most this chance."""
    return -math.log(-math.log1p(-rate / tests))


def p_value_of(standing: float, tests: int) -> float:
    """Return the chance of such a standing in a clean model, no less than the nets support."""
    tail = -math.expm1(-math.exp(min(-standing, 700.0)))
    return min(1.0, max(tests * tail, 1 / (CALIBRATION_NETS + 1)))


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
    work: Scanning,
    detectors: Sequence[ModelDetector],
    evidence: Sequence[Evidence],
    limit: float,
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
    scan = _scan_of(work, drawing, left, limit)
    while scan.verdict == "backdoored":
        strongest = _strongest(drawing, left)
        label, sources = strongest.target_label, strongest.source_labels
        detector = drawing[strongest.detector]
        in_model, in_reference = success_in_both(work, detector.recover(work, label, sources))
        if in_reference is None or in_model is None or in_reference <= NATURAL_SHARE * in_model:
            trigger = _easiest_trigger(work, detectors, left, strongest)
            scan = replace(scan, target_label=label, source_labels=sources, trigger=trigger)
            break
        natural.append((label, strongest.detector))
        rest = without_label(label, strongest, detector.null)
        left = [rest if part is strongest else part for part in left]
        scan = _scan_of(work, drawing, left, limit)
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


def _scan_of(
    work: Scanning,
    drawing: Mapping[str, ModelDetector],
    evidence: Sequence[Evidence],
    limit: float,
) -> ModelScan:
    """Return the verdict on what stands out most, after as many looks as it takes."""
    strongest = _strongest(drawing, evidence)
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
    return ModelScan(
        verdict=verdict,
        reasons=reasons,
        kind=strongest.detector,
        score=score,
        threshold=limit,
        p_value=p_value_of(score, len(evidence)),
        looks=tuple(standings),
    )


def _strongest(drawing: Mapping[str, ModelDetector], evidence: Sequence[Evidence]) -> Evidence:
    """Return what stands out most, by a detector that draws a trigger if there is one."""
    accusing = [part for part in evidence if part.detector in drawing]
    return max(accusing or evidence, key=lambda part: part.standing)


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


def without_label(label: int, evidence: Evidence, null: Null) -> Evidence:
    """Return what a detector says of the other labels."""
    others = evidence.statistics.copy()
    others[label] = -math.inf
    target = int(others.argmax())
    standing = null.standing(float(others[target]))
    return replace(evidence, statistics=others, standing=standing, target_label=target)
