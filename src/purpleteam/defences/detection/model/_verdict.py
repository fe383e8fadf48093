"""What a scan of a model says, and how rarely a clean one may look so by what was calibrated."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.defences.detection.model._base import Evidence
from purpleteam.defences.detection.outcome import Verdict, accused
from purpleteam.defences.detection.recovered import RecoveredTrigger

__all__ = [
    "CALIBRATION_NETS",
    "FALSE_ALARM_RATE",
    "ModelScan",
    "agree",
    "judged",
    "limit_of",
    "p_value_of",
]

FALSE_ALARM_RATE = 0.03
"""Share of clean models that may be flagged."""
LOOKS = 5
"""So often, at most, a label under suspicion is looked at."""
MARGIN = 1.5
"""Standings this close below the limit are neither an accusation nor a clearance.

It covers what one look differs from the next by, in clean nets that other seeds looked at.
"""
CALIBRATION_NETS = 46
"""Clean nets that the detectors' null laws were held against: results/calibration.json.

They are of three architectures and two recipes, after 1 to 60 epochs on MNIST, the embedded digits,
coloured digits of 5 or 7 classes and drawn shapes. N clean nets, none of them accused, support no
smaller chance than 1 in N + 1: no p-value is smaller.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelScan:
    """What a scan says of a model.

    Attributes:
        verdict: what is established: backdoored where a clean model would hardly look so.
        reasons: why nothing is established, a line each; none where something is.
        target_label: where the trigger leads; None where there is no backdoor.
        source_labels: the classes it works on; None is all, or no backdoor.
        kind: of the detectors that draw a trigger, the one that says so most strongly, alarm or
            not. None where nothing was compared.
        score: the standing that it gives the label, in scales of its null law; the median of the
            looks. Higher is more suspicious. None where nothing was compared.
        threshold: the score from which on a model is flagged.
        p_value: upper bound of the chance that a clean model looks so suspicious to any of the
            detectors, and never less than the calibration supports.
        looks: the standing in each look; further ones with another student and other searches.
        evidence: what each detector found at first; one that could not compare is left out.
        trigger: what was recovered; None where there is no backdoor.
        trigger_success: share of the trusted images of its sources that the accusing detector's
            trigger sends to the label, at the least of its strength that moves half of them.
        student_success: the same in the student; None where no trigger was looked for.
        set_aside: labels that stood out and are near by nature, each with the detector to which it
            did: the student follows its trigger too.
        seconds: how long it took.
    """

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    target_label: int | None = None
    source_labels: tuple[int, ...] | None = None
    kind: str | None = None
    score: float | None = None
    threshold: float
    p_value: float | None = None
    looks: tuple[float, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    trigger: RecoveredTrigger | None = None
    trigger_success: float | None = None
    student_success: float | None = None
    set_aside: tuple[tuple[int, str], ...] = ()
    seconds: float = 0.0

    @property
    def backdoored(self) -> bool | None:
        """Whether there is a backdoor; None where nothing is established."""
        return accused(self.verdict)

    @property
    def per_class(self) -> Mapping[str, NDArray[np.float64]]:
        """Statistics (classes,) by detector; higher is more suspicious."""
        return {one.detector: one.statistics for one in self.evidence}

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
            "looks": [None if np.isinf(one) else one for one in self.looks],
            "trigger_success": self.trigger_success,
            "student_success": self.student_success,
            "set_aside": [{"label": label, "kind": kind} for label, kind in self.set_aside],
            "seconds": self.seconds,
            "detectors": {one.detector: _row(one) for one in self.evidence},
        }


def limit_of(rate: float, tests: int) -> float:
    """Return the standing that one of so many Gumbel laws exceeds with at most this chance."""
    return -math.log(-math.log1p(-rate / tests))


def p_value_of(standing: float, tests: int) -> float:
    """Return the chance of such a standing in a clean model, no less than the nets support."""
    tail = -math.expm1(-math.exp(min(-standing, 700.0)))
    return min(1.0, max(tests * tail, 1 / (CALIBRATION_NETS + 1)))


def agree(standings: Sequence[float], limit: float) -> bool:
    """Say whether further looks can be spared.

    They can where nothing is suspicious, or two looks agree, or most of three do, and what they
    say together is not too close to the limit to be called.
    """
    if len(standings) == 1:
        return standings[0] < limit - MARGIN
    if len(standings) == 2 and len({one >= limit for one in standings}) == 2:
        return False
    close = limit - MARGIN <= statistics.median_low(standings) < limit
    return len(standings) == LOOKS or not close


def judged(
    score: float, limit: float, accusing: Evidence | None, found: Sequence[Evidence]
) -> tuple[Verdict, tuple[str, ...]]:
    """Return the verdict on a score, and the reasons where it is not established."""
    if accusing is not None and score >= limit:
        return "backdoored", ()
    if accusing is not None and score >= limit - MARGIN:
        close = f"label {accusing.target_label} stands at {score:.3g} by {accusing.detector}"
        return "not_established", (f"too close to call: {close}, flagged from {limit:.3g}",)
    lone = max((one for one in found), key=lambda one: one.standing)
    if lone.standing >= limit and (accusing is None or lone.detector != accusing.detector):
        label = lone.target_label
        return "not_established", (f"label {label} stands out by {lone.detector}, without trigger",)
    return "nothing_found", ()


def _row(one: Evidence) -> dict[str, Any]:
    return {
        "standing": None if np.isinf(one.standing) else one.standing,
        "target_label": one.target_label,
        "source_labels": None if one.source_labels is None else list(one.source_labels),
        "statistics": [None if np.isinf(x) else float(x) for x in one.statistics],
        **one.details,
    }
