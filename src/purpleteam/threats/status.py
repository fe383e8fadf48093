"""Derive, never type: the state of mitigations and threats from the results of checks.

Mitigation
    verified     it names checks, all of them (or one of `any`) passed, and they looked at what
                 the mitigation is `about`
    failed       one of `all` failed, or every one of `any` did
    unverified   anything else: no check, not run, skipped, error, broken, stale, another subject

Threat, the first that fits
    mitigated       it names mitigations, all are verified, and what remains is low or a note
    accepted        somebody lives with it, and the date has not passed
    partly          at least one mitigation is verified
    open            none is
    not_applicable  a cell without a threat, with its reason

What remains is the OWASP level after the credits of the verified mitigations alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

from purpleteam.core.records import CheckResult, Severity, ThreatStatus, Verdict
from purpleteam.threats.model import (
    LETTERS,
    LEVELS,
    REQUIRED,
    SUBJECTS,
    Cell,
    Checks,
    Kind,
    Letter,
    Mitigation,
    SystemModel,
    Threat,
    worst,
)

MitigationState = Literal["verified", "failed", "unverified"]
Subjects = Mapping[str, Collection[str]]
"""For each `model.Subject` the digests of what it is in the system at hand."""

TOLERABLE: Severity = "low"
"""The highest level that may remain of a threat that counts as mitigated."""
RANK: tuple[Verdict, ...] = ("fail", "broken", "error", "stale", "skipped", "pass")
"""Of several verdicts of one check the first in this row stands."""
STATUSES = ("open", "partly", "accepted", "mitigated", "not_applicable")
"""Worst first."""


def verdicts(results: Iterable[CheckResult]) -> dict[str, Verdict]:
    """Return one verdict per check: the worst, where a check ran on several targets.

    A pass without a negative control that failed as required is no pass, but `broken`.
    """
    worst_of: dict[str, Verdict] = {}
    for result in results:
        proved = result.verdict != "pass" or result.negative_control.get("failed_as_required")
        verdict: Verdict = result.verdict if proved is True else "broken"
        worst_of[result.check] = min(worst_of.get(result.check, verdict), verdict, key=RANK.index)
    return worst_of


def derive(
    system: SystemModel,
    results: Iterable[CheckResult],
    today: date,
    subjects: Subjects | None = None,
) -> list[ThreatStatus]:
    """Return the status of every threat, then of every cell that is not applicable.

    Args:
        system: what can go wrong and what is done about it.
        results: what the checks said, with their inputs.
        today: the day on which acceptances are looked at.
        subjects: the digests that a mitigation's checks must have among their inputs; a subject
            that is not in it was looked at by no check. Without `subjects` the caller says that
            the checks were given this very system.
    """
    results = list(results)
    verdict = verdicts(results)
    inputs: dict[str, set[str]] = {}
    for result in results:
        inputs.setdefault(result.check, set()).update(map(str, result.inputs.values()))
    evidence = {one.id: _evidence(one, verdict, inputs, subjects) for one in system.mitigations}
    accepted = {one.threat for one in system.accepted if today <= one.until}
    threats = [_status(system, one, evidence, one.id in accepted) for one in system.threats]
    cells = [
        ThreatStatus(
            threat=f"N-{one.element.removeprefix('f-').upper()}-{letter}",
            element=one.element,
            stride=letter,
            title=one.reason,
            inherent="note",
            residual="note",
            status="not_applicable",
            mitigations={},
        )
        for one in system.not_applicable
        for letter in one.stride
    ]
    return threats + cells


def mitigation_state(checks: Checks, results: Mapping[str, Verdict]) -> MitigationState:
    """Return what the verdicts say of a mitigation; only `pass` can verify one."""
    every = {results.get(check) for check in checks.all}
    some = {results.get(check) for check in checks.any}
    if every == {"pass"} or "pass" in some:
        return "verified"
    return "failed" if "fail" in every or some == {"fail"} else "unverified"


def _evidence(
    mitigation: Mitigation,
    results: Mapping[str, Verdict],
    inputs: Mapping[str, set[str]],
    subjects: Subjects | None,
) -> dict[str, Any]:
    """Return the state of a mitigation with what shows it.

    A check that failed counts against it whatever it did not look at; but nothing counts for or
    against what is not there.
    """
    checks = mitigation.checks
    state = mitigation_state(checks, results)
    seen = {digest for check in checks.ids for digest in inputs.get(check, ())}
    unseen = []
    for name in mitigation.about if subjects is not None and checks.ids else ():
        wanted = set((subjects or {}).get(name, ()))
        if not wanted or not wanted <= seen:
            unseen.append(SUBJECTS[name])
            state = state if wanted and state == "failed" else "unverified"
    return {
        "statement": mitigation.statement,
        "status": state,
        "checks": {check: results.get(check, "not run") for check in checks.ids},
    } | ({"not_looked_at": unseen} if unseen else {})


def _status(
    system: SystemModel, threat: Threat, evidence: Mapping[str, dict[str, Any]], accepted: bool
) -> ThreatStatus:
    named = {name: evidence[name] for name in threat.mitigations}
    verified = [name for name, facts in named.items() if facts["status"] == "verified"]
    residual = threat.inherent.after(system.mitigation[name].effect for name in verified)
    tolerable = LEVELS.index(residual) <= LEVELS.index(TOLERABLE)
    status: Literal["mitigated", "accepted", "partly", "open"]
    if named and len(verified) == len(named) and tolerable:
        status = "mitigated"
    elif accepted:
        status = "accepted"
    else:
        status = "partly" if verified else "open"
    return ThreatStatus(
        threat=threat.id,
        element=threat.element,
        stride=threat.stride,
        title=threat.title,
        inherent=threat.inherent.level,
        residual=residual,
        status=status,
        mitigations=named,
    )


@dataclass(frozen=True, kw_only=True)
class MatrixCell:
    """One part and one letter: the threats there, or why there are none."""

    stride: Letter
    required: bool
    threats: tuple[str, ...] = ()
    reason: str = ""
    inherent: Severity | None = None
    residual: Severity | None = None
    status: str = ""


@dataclass(frozen=True, kw_only=True)
class MatrixRow:
    """One part with its six cells."""

    element: str
    name: str
    kind: Kind
    cells: tuple[MatrixCell, ...]


@dataclass(frozen=True, kw_only=True)
class Gaps:
    """What a system leaves unanswered; empty everywhere where nothing is missing."""

    cells: tuple[str, ...] = ()
    """Required STRIDE cells with neither a threat nor a reason, such as `weights/T`."""
    unchecked: tuple[str, ...] = ()
    """Mitigations without a check: plans."""
    unmitigated: tuple[str, ...] = ()
    """Threats that name no mitigation."""
    unknown_checks: tuple[str, ...] = ()
    """Checks that mitigations name and nobody has."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Counts of a derived list; levels are of threats alone, without not-applicable cells."""

    statuses: dict[str, int] = field(default_factory=dict)
    inherent: dict[str, int] = field(default_factory=dict)
    residual: dict[str, int] = field(default_factory=dict)
    mitigations: dict[str, int] = field(default_factory=dict)
    worst: Severity | None = None
    """The highest level that remains."""


def matrix(system: SystemModel, statuses: Sequence[ThreatStatus] = ()) -> tuple[MatrixRow, ...]:
    """Return the table of parts and letters, with what was derived where it was."""
    derived = {status.threat: status for status in statuses}

    def at(cell: Cell, kind: Kind) -> MatrixCell:
        threats = system.threats_at(cell)
        here = [derived[threat.id] for threat in threats if threat.id in derived]
        reason = system.reason_at(cell)
        return MatrixCell(
            stride=cell[1],
            required=cell[1] in REQUIRED[kind],
            threats=tuple(threat.id for threat in threats),
            reason=reason,
            inherent=worst(threat.inherent.level for threat in threats),
            residual=worst(status.residual for status in here),
            status="not_applicable" if reason else worst_status(here),
        )

    return tuple(
        MatrixRow(
            element=part,
            name=system.names[part],
            kind=kind,
            cells=tuple(at((part, letter), kind) for letter in LETTERS),
        )
        for part, kind in system.kinds.items()
    )


def missing(system: SystemModel, known_checks: Iterable[str] | None = None) -> Gaps:
    """Return what is unanswered; `known_checks` are the ids that can run, where that is known."""
    named = {check for mitigation in system.mitigations for check in mitigation.checks.ids}
    return Gaps(
        cells=tuple(
            f"{row.element}/{cell.stride}"
            for row in matrix(system)
            for cell in row.cells
            if cell.required and not cell.threats and not cell.reason
        ),
        unchecked=tuple(one.id for one in system.mitigations if not one.checks.ids),
        unmitigated=tuple(threat.id for threat in system.threats if not threat.mitigations),
        unknown_checks=() if known_checks is None else tuple(sorted(named - set(known_checks))),
    )


def summary(statuses: Sequence[ThreatStatus]) -> Summary:
    """Return how many threats are in which state, and how bad what remains is."""
    threats = [one for one in statuses if one.status != "not_applicable"]
    states = {
        name: str(facts["status"]) for one in statuses for name, facts in one.mitigations.items()
    }
    return Summary(
        statuses=_counted(STATUSES, (one.status for one in statuses)),
        inherent=_counted(LEVELS, (one.inherent for one in threats)),
        residual=_counted(LEVELS, (one.residual for one in threats)),
        mitigations=_counted(("verified", "failed", "unverified"), states.values()),
        worst=worst(one.residual for one in threats),
    )


def _counted(names: Sequence[str], items: Iterable[str]) -> dict[str, int]:
    counted = Counter(items)
    return {name: counted[name] for name in names}


def unmodelled(system: SystemModel, cwes: Iterable[str]) -> tuple[str, ...]:
    """Return the weaknesses that scanners found and no threat names: the model is behind."""
    named = {ref for threat in system.threats for ref in threat.refs.get("cwe", ())}
    return tuple(sorted(set(cwes) - named))


def worst_status(statuses: Iterable[ThreatStatus]) -> str:
    """Return the worst of several states, `open` first; empty where there is none."""
    return min((one.status for one in statuses), key=STATUSES.index, default="")
