"""Derive, never type: the state of mitigations and threats from the verdicts of checks.

Mitigation
    verified     it names checks, and all of them (or one of `any`) passed
    failed       one of `all` failed, or every one of `any` did
    unverified   anything else: no check, not run, skipped, error, broken, stale

Threat, the first that fits
    mitigated       it names mitigations, all are verified, and what remains is low or a note
    accepted        somebody lives with it, and the date has not passed
    partly          at least one mitigation is verified
    open            none is
    not_applicable  a cell without a threat, with its reason

What remains is the OWASP level after the credits of the verified mitigations alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Literal

from purpleteam.core.records import CheckResult, Severity, ThreatStatus, Verdict
from purpleteam.threats.model import Checks, Mitigation, NotApplicable, SystemModel, Threat
from purpleteam.threats.risk import LEVELS

__all__ = ["TOLERABLE", "MitigationState", "derive", "mitigation_state", "verdicts"]

MitigationState = Literal["verified", "failed", "unverified"]
ThreatState = Literal["mitigated", "partly", "open", "accepted", "not_applicable"]

TOLERABLE: Severity = "low"
"""The highest level that may remain of a threat that counts as mitigated."""

RANK: tuple[Verdict, ...] = ("fail", "broken", "error", "stale", "skipped", "pass")
"""Of several verdicts of one check the first in this row stands."""


def verdicts(results: Iterable[CheckResult]) -> dict[str, Verdict]:
    """Return one verdict per check: the worst, where a check ran on several targets.

    A pass without a negative control that failed as required is no pass, but `broken`.
    """
    found: dict[str, Verdict] = {}
    for one in results:
        proved = one.verdict != "pass" or one.negative_control.get("failed_as_required") is True
        verdict: Verdict = one.verdict if proved else "broken"
        found[one.check] = min(found.get(one.check, verdict), verdict, key=RANK.index)
    return found


def mitigation_state(checks: Checks, results: Mapping[str, Verdict]) -> MitigationState:
    """Return what the verdicts say of a mitigation; only `pass` can verify one."""
    if checks.all and all(results.get(one) == "pass" for one in checks.all):
        return "verified"
    if any(results.get(one) == "pass" for one in checks.any):
        return "verified"
    if any(results.get(one) == "fail" for one in checks.all):
        return "failed"
    if checks.any and all(results.get(one) == "fail" for one in checks.any):
        return "failed"
    return "unverified"


def derive(system: SystemModel, results: Mapping[str, Verdict], today: date) -> list[ThreatStatus]:
    """Return the status of every threat, then of every cell that is not applicable.

    Args:
        system: what can go wrong and what is done about it.
        results: the verdict of each check by its id; see `verdicts`.
        today: the day on which acceptances are looked at.
    """
    states = {one.id: mitigation_state(one.checks, results) for one in system.mitigations}
    accepted = {one.threat for one in system.accepted if today <= one.until}
    threats = [
        _status(system, threat, states, results, threat.id in accepted) for threat in system.threats
    ]
    return threats + [cell for one in system.not_applicable for cell in _reasons(one)]


def _status(
    system: SystemModel,
    threat: Threat,
    states: Mapping[str, MitigationState],
    results: Mapping[str, Verdict],
    accepted: bool,
) -> ThreatStatus:
    named = [system.mitigation[name] for name in threat.mitigations]
    verified = [one for one in named if states[one.id] == "verified"]
    residual = threat.inherent.after(one.effect for one in verified)
    return ThreatStatus(
        threat=threat.id,
        element=threat.element,
        stride=threat.stride,
        title=threat.title,
        inherent=threat.inherent.level,
        residual=residual,
        status=_word(len(named), len(verified), residual, accepted),
        mitigations={one.id: _evidence(one, states[one.id], results) for one in named},
        origin=threat.origin,
    )


def _word(named: int, verified: int, residual: Severity, accepted: bool) -> ThreatState:
    tolerable = LEVELS.index(residual) <= LEVELS.index(TOLERABLE)
    if named and verified == named and tolerable:
        return "mitigated"
    if accepted:
        return "accepted"
    return "partly" if verified else "open"


def _evidence(
    one: Mitigation, state: MitigationState, results: Mapping[str, Verdict]
) -> dict[str, object]:
    return {
        "statement": one.statement,
        "status": state,
        "checks": {check: results.get(check, "not run") for check in one.checks.ids},
    }


def _reasons(one: NotApplicable) -> list[ThreatStatus]:
    name = one.element.removeprefix("f-").upper()
    return [
        ThreatStatus(
            threat=f"N-{name}-{letter}",
            element=one.element,
            stride=letter,
            title=one.reason,
            inherent="note",
            residual="note",
            status="not_applicable",
            mitigations={},
            origin=one.origin,
        )
        for letter in one.stride
    ]
