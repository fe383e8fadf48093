"""Threats: the system, what can go wrong with each part, and what checks have proved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from purpleteam.core.records import CheckResult, ThreatStatus
from purpleteam.core.schema import SYSTEM_MODEL
from purpleteam.report.blocks import checks
from purpleteam.report.chapter import CHAPTERS, Chapter
from purpleteam.report.chapters.scan import severity_badge
from purpleteam.report.collect import SEVERITIES, Evidence, items
from purpleteam.report.foreign import only_drawing
from purpleteam.report.numbers import count
from purpleteam.report.view import (
    DASH,
    Badge,
    Block,
    Drawing,
    Heading,
    Inline,
    Mono,
    Prose,
    RecordLink,
    Row,
    Table,
    row,
)

STRIDE = {
    "S": "Spoofing",
    "T": "Tampering",
    "R": "Repudiation",
    "I": "Information disclosure",
    "D": "Denial of service",
    "E": "Elevation of privilege",
}
TONES = {
    "mitigated": "good",
    "partly": "warn",
    "open": "bad",
    "accepted": "quiet",
    "verified": "good",
    "failed": "bad",
}
WORST_FIRST = ("open", "partly", "accepted", "mitigated", "not_applicable")
COLUMNS = ("Threat", "Part", "Inherent", "Remains", "Status", "Mitigations, and what proves them")
SHOWN = ("columns", "diagram", "stride", "cells", "threats", "summary", "course_tables")
"""Facts of a system model that have a form of their own; every other list is a folded table."""
ELSEWHERE = ("seed_tables",)
"""Facts of runs of schema 1 that a plug-in's chapter shows."""
LEVELS = ("our_level", "remains", "inherent", "residual", "level", "computed")
NAMES = ("id", "ours", "origin", "references", "all_of", "any_of")
LONG = 30
"""Characters from which the entries of a list stand one below the other."""


def _summary(evidence: Evidence) -> list[Block]:
    parts: list[Inline] = []
    for status in WORST_FIRST:
        ids = [threat.id for threat in evidence.threats() if threat.status == status]
        if ids:
            parts += [" · " if parts else "", count(ids), f" {status.replace('_', ' ')}"]
    return [Prose(tuple(parts), style="tally")] if parts else []


def _diagram(evidence: Evidence) -> list[Block]:
    title = "The system: parts, numbered flows, and trust boundaries in dashes"
    return [
        Drawing(title=title, svg=svg, record=note.id)
        for note in evidence.notes(SYSTEM_MODEL)
        if isinstance(diagram := note.facts.get("diagram"), str) and (svg := only_drawing(diagram))
    ]


def _names(evidence: Evidence) -> dict[str, str]:
    return {
        str(part.get("id")): str(part.get("name", part.get("id")))
        for note in evidence.notes(SYSTEM_MODEL)
        for part in (*items(note.facts, "elements"), *items(note.facts, "flows"))
    }


def _matrix(evidence: Evidence) -> list[Block]:
    names = _names(evidence)
    cells: dict[str, dict[str, list[ThreatStatus]]] = {}
    place = {name: number for number, name in enumerate(names)}
    for threat in evidence.threats():
        cells.setdefault(threat.element, {}).setdefault(threat.stride[:1].upper(), []).append(
            threat
        )
    rows = tuple(
        row(names.get(element, element), *(_worst(threats.get(letter, [])) for letter in STRIDE))
        for element, threats in sorted(cells.items(), key=lambda pair: place.get(pair[0], 999))
    )
    note = "The worst status of a cell's threats; a dash where the kind of part has no such cell."
    table = Table(
        caption="Each part against each kind of threat",
        columns=("Part", *STRIDE.values()),
        rows=rows,
        note=(note,),
        dense=True,
    )
    return [table] if rows else []


def _worst(threats: Sequence[ThreatStatus]) -> Inline:
    worst = min((threat.status for threat in threats), key=WORST_FIRST.index, default=None)
    if worst is None:
        return DASH
    return "n/a" if worst == "not_applicable" else _status(worst)


def _status(status: str) -> Badge:
    return Badge(status.replace("_", " "), TONES.get(status, "quiet"))


def _remaining(evidence: Evidence) -> list[Block]:
    """Return what remains grave, open to the eye, and the rest folded."""
    real = [threat for threat in evidence.threats() if threat.status != "not_applicable"]
    real.sort(
        key=lambda threat: (
            SEVERITIES.index(threat.residual),
            WORST_FIRST.index(threat.status),
            threat.threat,
        )
    )
    names = _names(evidence)
    known = {check.check: check for check in evidence.of(CheckResult)}
    details = {
        str(item.get("id")): item
        for note in evidence.notes(SYSTEM_MODEL)
        for item in items(note.facts, "threats")
    }
    grave = [threat for threat in real if threat.residual in ("high", "critical")]
    rest = [threat for threat in real if threat not in grave]
    return [
        Table(
            caption=caption,
            columns=COLUMNS,
            rows=tuple(
                _row(threat, names, known, details.get(threat.threat, {})) for threat in threats
            ),
            folded=folded,
            stacked=True,
        )
        for caption, threats, folded in (
            ("Threats that remain high or critical", grave, False),
            ("Threats of which less remains", rest, bool(grave)),
        )
        if threats
    ]


def _row(
    threat: ThreatStatus,
    names: Mapping[str, str],
    known: Mapping[str, CheckResult],
    detail: Mapping[str, Any],
) -> Row:
    named = [*map(str, detail.get("references") or ()), *threat.origin]
    public = (Mono(", ".join(named)),) if named else ()
    mitigations: list[Inline] = []
    for name, facts in threat.mitigations.items():
        mitigations += _mitigation(name, facts if isinstance(facts, Mapping) else {}, known)
    return row(
        (Mono(threat.threat), " " + threat.title, *public, RecordLink(threat.id)),
        (names.get(threat.element, threat.element), ", " + _kind(threat).lower()),
        severity_badge(threat.inherent),
        severity_badge(threat.residual),
        _status(threat.status),
        tuple(mitigations) or "none",
        record=threat.id,
    )


def _kind(threat: ThreatStatus) -> str:
    return STRIDE.get(threat.stride[:1].upper(), threat.stride)


def _mitigation(
    name: str, facts: Mapping[str, Any], known: Mapping[str, CheckResult]
) -> list[Inline]:
    status = str(facts.get("status", "unverified"))
    parts: list[Inline] = [_status(status), f" {facts.get('statement', name)}"]
    proofs = facts.get("checks")
    for check, verdict in proofs.items() if isinstance(proofs, Mapping) else ():
        parts += [" ", Mono(f"{check} {verdict}"), " "]
        if str(check) in known:
            parts.append(RecordLink(known[str(check)].id))
    if unseen := facts.get("not_looked_at"):
        parts.append(f"No check of it looked at {'; '.join(map(str, unseen))}.")
    return [*parts, "\n"]


def _not_applicable(evidence: Evidence) -> list[Block]:
    names = _names(evidence)
    rows = tuple(
        row(
            names.get(threat.element, threat.element), _kind(threat), threat.title, record=threat.id
        )
        for threat in evidence.threats()
        if threat.status == "not_applicable"
    )
    columns = ("Part", "Kind", "Why nothing can go wrong there")
    table = Table(caption="Cells that do not apply", columns=columns, rows=rows, folded=True)
    return [table] if rows else []


def _parts(evidence: Evidence) -> list[Block]:
    """Return every other list of the system model."""
    blocks: list[Block] = []
    for note in evidence.notes(SYSTEM_MODEL):
        for key, value in note.facts.items():
            if key not in (*SHOWN, *ELSEWHERE):
                blocks += listed(key, value, note.facts.get("columns"), note.id)
    return [Heading("The system model, part by part"), *blocks] if blocks else []


def listed(key: str, value: Any, order: Any, record: str, title: str = "") -> list[Table]:
    """Return a folded table for each list of rows, at whatever depth it stands.

    Args:
        key: the name of the list.
        value: a list of mappings, or a mapping of such.
        order: the columns of a list by its name, where they are given.
        record: what all of it comes from.
        title: what stands before the name.
    """
    title = f"{title} {key}".strip()
    if isinstance(value, Mapping):
        inner = [listed(name, threat, order, record, title) for name, threat in value.items()]
        return [table for tables in inner for table in tables]
    items_of = (
        [item for item in value if isinstance(item, Mapping)]
        if isinstance(value, list | tuple)
        else []
    )
    present = dict.fromkeys(name for item in items_of for name in item)
    asked = (order.get(key) or ()) if isinstance(order, Mapping) else ()
    columns = tuple(dict.fromkeys([*(name for name in asked if name in present), *present]))
    rows = tuple(
        row(*(_cell(name, item.get(name)) for name in columns), record=record) for item in items_of
    )
    table = Table(
        caption=(title[:1].upper() + title[1:]).replace("_", " "),
        columns=tuple(name.replace("_", " ") for name in columns),
        rows=rows,
        folded=True,
        note=(RecordLink(record),),
        dense=True,
    )
    return [table] if rows else []


def _cell(name: str, value: Any) -> Inline:
    text = _words(value)
    if text == DASH:
        return text
    if name in LEVELS:
        return severity_badge(text)
    if name == "status":
        return _status(text)
    return Mono(text) if name in NAMES else text


def _words(value: Any) -> str:
    if isinstance(value, list | tuple):
        words = [_words(item) for item in value]
        return ("\n" if any(len(word) > LONG for word in words) else ", ").join(words) or DASH
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_words(item)}" for key, item in value.items() if item) or DASH
    return DASH if value is None or value == "" else str(value)


CHAPTERS.register("threats")(
    Chapter(
        title="Threats",
        lead="What can go wrong with each part of the system, and which answers are proved.",
        parts=(
            _summary,
            _diagram,
            _matrix,
            _remaining,
            _not_applicable,
            _parts,
            checks("Checks of the record itself", "run"),
        ),
        means="A mitigation counts only while a check that ran proves it, and the check only after "
        "it failed on an example made to fail. Levels are computed from likelihood and impact by "
        "one matrix, and lowered only by proved mitigations.",
        means_not="A list of threats is never complete, and a proved mitigation is proved for the "
        "files and the app that the check looked at. Open rows are shown because they are open, "
        "not because they were forgotten.",
        notes=(SYSTEM_MODEL,),
        kinds=(ThreatStatus,),
        stage="threats",
        gap="Threats to the system around the model: none was modelled",
        try_="purple threats --run .",
        after="scan",
    )
)
