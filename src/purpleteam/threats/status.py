"""Derive, never type: the state of mitigations and threats from the results of checks.

A mitigation is verified where all of its checks (or one of `any`) passed and looked at what it is
`about`, failed where one of `all` or every one of `any` failed, else unverified. A threat is the
first of these: mitigated (all it names are verified, and at most a low risk remains), accepted
(until a date), partly (one is verified), open. What remains is the OWASP level after the credits
of the verified mitigations alone.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from typing import Any, Literal

from purpleteam.core.records import CheckResult, Severity, ThreatStatus, Verdict
from purpleteam.core.schema import STRIDE, Letter
from purpleteam.threats import model
from purpleteam.threats.diagram import draw
from purpleteam.threats.model import LETTERS, LEVELS, Cell, SystemModel

Row = dict[str, Any]
MitigationState = Literal["verified", "failed", "unverified"]
Subjects = Mapping[str, Collection[str]]
"""For each `model.Subject` the digests of what it is in the system at hand."""

TOLERABLE: tuple[Severity, ...] = ("note", "low")
"""What may remain of a threat that counts as mitigated."""
RANK: tuple[Verdict, ...] = ("fail", "broken", "error", "stale", "skipped", "pass")
"""Of several verdicts of one check the first in this row stands."""
STATUSES = ("open", "partly", "accepted", "mitigated", "not_applicable")  # worst first


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
    evidence = {
        mitigation.id: _evidence(mitigation, verdict, inputs, subjects)
        for mitigation in system.mitigations
    }
    accepted = {decision.threat for decision in system.accepted if today <= decision.until}
    statuses = []
    for threat in system.threats:
        named = {name: evidence[name] for name in threat.mitigations}
        verified = [name for name, facts in named.items() if facts["status"] == "verified"]
        residual = threat.inherent.after(system.mitigation[name].effect for name in verified)
        status: Literal["mitigated", "accepted", "partly", "open"]
        status = "partly" if verified else "open"
        if verified and len(verified) == len(named) and residual in TOLERABLE:
            status = "mitigated"
        elif threat.id in accepted:
            status = "accepted"
        statuses.append(
            ThreatStatus(
                threat=threat.id,
                element=threat.element,
                stride=threat.stride,
                title=threat.title,
                inherent=threat.inherent.level,
                residual=residual,
                status=status,
                mitigations=named,
            )
        )
    return statuses + [
        ThreatStatus(
            threat=f"N-{cell.element.removeprefix('f-').upper()}-{letter}",
            element=cell.element,
            stride=letter,
            title=cell.reason,
            inherent="note",
            residual="note",
            status="not_applicable",
            mitigations={},
        )
        for cell in system.not_applicable
        for letter in cell.stride
    ]


def mitigation_state(checks: model.Checks, results: Mapping[str, Verdict]) -> MitigationState:
    """Return what the verdicts say of a mitigation; only `pass` can verify one."""
    every = {results.get(check) for check in checks.all}
    some = {results.get(check) for check in checks.any}
    if every == {"pass"} or "pass" in some:
        return "verified"
    return "failed" if "fail" in every or some == {"fail"} else "unverified"


def _evidence(
    mitigation: model.Mitigation,
    results: Mapping[str, Verdict],
    inputs: Mapping[str, set[str]],
    subjects: Subjects | None,
) -> dict[str, Any]:
    """Return the state of a mitigation with what shows it.

    A failed check counts whatever it did not look at; but nothing counts of what is not there.
    """
    checks = mitigation.checks
    state = mitigation_state(checks, results)
    seen = {digest for check in checks.ids for digest in inputs.get(check, ())}
    unseen = []
    for name in mitigation.about if subjects is not None and checks.ids else ():
        wanted = set((subjects or {}).get(name, ()))
        if not wanted or not wanted <= seen:
            unseen.append(model.SUBJECTS[name])
            state = state if wanted and state == "failed" else "unverified"
    return {
        "statement": mitigation.statement,
        "status": state,
        "checks": {check: results.get(check, "not run") for check in checks.ids},
    } | ({"not_looked_at": unseen} if unseen else {})


def matrix(system: SystemModel, statuses: Sequence[ThreatStatus] = ()) -> dict[Cell, str]:
    """Return each cell's text: its threats and their state, "not applicable", "missing" or ""."""
    derived = {status.threat: status for status in statuses}
    excused = {(cell.element, letter) for cell in system.not_applicable for letter in cell.stride}
    cells: dict[Cell, str] = {}
    for part, kind in system.kinds.items():
        for letter in LETTERS:
            threats = [threat.id for threat in system.threats_at((part, letter))]
            status = worst_status(derived[threat] for threat in threats if threat in derived)
            text = ", ".join(threats) + (f": {status}" if status else "")
            text = text or ("missing" if letter in model.REQUIRED[kind] else "")
            cells[part, letter] = "not applicable" if (part, letter) in excused else text
    return cells


def missing(system: SystemModel, known_checks: Iterable[str] | None = None) -> dict[str, list[str]]:
    """Return what a system leaves unanswered; every list is empty where nothing is missing.

    `cells` are required ones with neither a threat nor a reason, `unchecked` mitigations are plans;
    `unknown_checks` are named and not among `known_checks`, where these are known.
    """
    named = {check for mitigation in system.mitigations for check in mitigation.checks.ids}
    cells = matrix(system).items()
    return {
        "cells": [f"{part}/{letter}" for (part, letter), text in cells if text == "missing"],
        "unchecked": [answer.id for answer in system.mitigations if not answer.checks.ids],
        "unmitigated": [threat.id for threat in system.threats if not threat.mitigations],
        "unknown_checks": [] if known_checks is None else sorted(named - set(known_checks)),
    }


def summary(statuses: Sequence[ThreatStatus]) -> dict[str, Any]:
    """Return how many threats are in which state, and the worst level that remains."""
    threats = [status for status in statuses if status.status != "not_applicable"]
    named = (pair for status in statuses for pair in status.mitigations.items())
    states = {name: str(facts["status"]) for name, facts in named}
    counts: dict[str, tuple[Sequence[str], Iterable[str]]] = {
        "statuses": (STATUSES, [status.status for status in statuses]),
        "inherent": (LEVELS, [threat.inherent for threat in threats]),
        "residual": (LEVELS, [threat.residual for threat in threats]),
        "mitigations": (("verified", "failed", "unverified"), states.values()),
    }
    return {
        kind: dict.fromkeys(names, 0) | Counter(items) for kind, (names, items) in counts.items()
    } | {"worst": model.worst(threat.residual for threat in threats)}


def worst_status(statuses: Iterable[ThreatStatus]) -> str:
    """Return the worst of several states, `open` first; empty where there is none."""
    return min((status.status for status in statuses), key=STATUSES.index, default="")


def to_facts(system: SystemModel, statuses: Sequence[ThreatStatus] = ()) -> dict[str, Any]:
    """Return all that a report shows of a system, as plain JSON for a `Note`.

    Every list is a table of flat entries; records are written with sorted keys, so `columns` holds
    the order in which a table is read. Without statuses nothing derived is in it.
    """
    zones = {zone.id: zone.name for zone in system.zones}
    crossed = [system.crosses(flow) or () for flow in system.flows]
    cells: dict[str, Row] = {
        part: {"part": system.names[part], "kind": kind} for part, kind in system.kinds.items()
    }
    for (part, letter), text in matrix(system, statuses).items():
        cells[part][column(letter)] = text
    facts: dict[str, Any] = {
        "name": system.name,
        "description": system.description,
        "stride": STRIDE,
        "zones": [asdict(zone) for zone in system.zones],
        "elements": [_shown(element) for element in system.elements],
        "flows": [
            {"number": number, **_shown(flow), "crosses": " to ".join(zones[end] for end in ends)}
            for number, (flow, ends) in enumerate(zip(system.flows, crossed, strict=True), 1)
        ],
        "threats": [
            {
                "id": threat.id,
                "part": threat.element,
                "title": threat.title,
                "description": threat.description,
                "likelihood": threat.inherent.likelihood,
                "impact": threat.inherent.impact,
                "level": threat.inherent.level,
                "why": threat.inherent.why,
                "mitigations": threat.mitigations,
                "references": [ref for refs in threat.refs.values() for ref in refs],
            }
            for threat in system.threats
        ],
        "mitigations": [
            {
                "id": answer.id,
                "statement": answer.statement,
                "lowers": [key for key, steps in vars(answer.effect).items() if steps],
                "why": answer.why,
                "all_of": answer.checks.all,
                "any_of": answer.checks.any,
                "about": answer.about,
            }
            for answer in system.mitigations
        ],
        "accepted": [
            asdict(decision) | {"until": decision.until.isoformat()} for decision in system.accepted
        ],
        "cells": list(cells.values()),
        "catalogue": dict(system.catalogue),
        "missing": missing(system),
        "summary": summary(statuses),
        "diagram": draw(system),
    }
    plain: dict[str, Any] = json.loads(json.dumps(facts | {"columns": columns(facts)}))
    return plain


def column(letter: Letter) -> str:
    """Return what a table calls the column of a letter."""
    return STRIDE[letter].lower().replace(" ", "_")


def columns(tables: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the order of the columns of each list of rows."""
    return {
        name: list(rows[0])
        for name, rows in tables.items()
        if isinstance(rows, list) and rows and isinstance(rows[0], dict)
    }


def _shown(part: model.Element | model.Flow) -> Row:
    return {key: value for key, value in asdict(part).items() if key not in ("at", "when")}
