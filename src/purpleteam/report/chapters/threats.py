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
"""Facts that the chapter on the course reports shows."""
LEVELS = ("our_level", "remains", "inherent", "residual", "level", "computed")
NAMES = ("id", "ours", "origin", "references", "all_of", "any_of")
LONG = 30
"""Characters from which the entries of a list stand one below the other."""


def _summary(evidence: Evidence) -> list[Block]:
    parts: list[Inline] = []
    for status in WORST_FIRST:
        ids = [one.id for one in evidence.threats() if one.status == status]
        if ids:
            parts += [" · " if parts else "", count(ids), f" {status.replace('_', ' ')}"]
    return [Prose(tuple(parts), style="tally")] if parts else []


def _diagram(evidence: Evidence) -> list[Block]:
    title = "The system: parts, numbered flows, and trust boundaries in dashes"
    return [
        Drawing(title=title, svg=svg, record=note.id)
        for note in evidence.notes(SYSTEM_MODEL)
        if isinstance(found := note.facts.get("diagram"), str) and (svg := only_drawing(found))
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
    for one in evidence.threats():
        cells.setdefault(one.element, {}).setdefault(one.stride[:1].upper(), []).append(one)
    rows = tuple(
        row(names.get(element, element), *(_worst(found.get(letter, [])) for letter in STRIDE))
        for element, found in sorted(cells.items(), key=lambda pair: place.get(pair[0], 999))
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


def _worst(found: Sequence[ThreatStatus]) -> Inline:
    worst = min((one.status for one in found), key=WORST_FIRST.index, default=None)
    if worst is None:
        return DASH
    return "n/a" if worst == "not_applicable" else _status(worst)


def _status(status: str) -> Badge:
    return Badge(status.replace("_", " "), TONES.get(status, "quiet"))


def _remaining(evidence: Evidence) -> list[Block]:
    """Return what remains grave, open to the eye, and the rest folded."""
    real = [one for one in evidence.threats() if one.status != "not_applicable"]
    real.sort(
        key=lambda one: (SEVERITIES.index(one.residual), WORST_FIRST.index(one.status), one.threat)
    )
    names = _names(evidence)
    known = {one.check: one for one in evidence.of(CheckResult)}
    details = {
        str(one.get("id")): one
        for note in evidence.notes(SYSTEM_MODEL)
        for one in items(note.facts, "threats")
    }
    grave = [one for one in real if one.residual in ("high", "critical")]
    rest = [one for one in real if one not in grave]
    return [
        Table(
            caption=caption,
            columns=COLUMNS,
            rows=tuple(_row(one, names, known, details.get(one.threat, {})) for one in found),
            folded=folded,
            stacked=True,
        )
        for caption, found, folded in (
            ("Threats that remain high or critical", grave, False),
            ("Threats of which less remains", rest, bool(grave)),
        )
        if found
    ]


def _row(
    one: ThreatStatus,
    names: Mapping[str, str],
    known: Mapping[str, CheckResult],
    detail: Mapping[str, Any],
) -> Row:
    named = [*map(str, detail.get("references") or ()), *one.origin]
    public = (Mono(", ".join(named)),) if named else ()
    mitigations: list[Inline] = []
    for name, facts in one.mitigations.items():
        mitigations += _mitigation(name, facts if isinstance(facts, Mapping) else {}, known)
    return row(
        (Mono(one.threat), " " + one.title, *public, RecordLink(one.id)),
        (names.get(one.element, one.element), ", " + _kind(one).lower()),
        severity_badge(one.inherent),
        severity_badge(one.residual),
        _status(one.status),
        tuple(mitigations) or "none",
        record=one.id,
    )


def _kind(one: ThreatStatus) -> str:
    return STRIDE.get(one.stride[:1].upper(), one.stride)


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
    return [*parts, "\n"]


def _not_applicable(evidence: Evidence) -> list[Block]:
    names = _names(evidence)
    rows = tuple(
        row(names.get(one.element, one.element), _kind(one), one.title, record=one.id)
        for one in evidence.threats()
        if one.status == "not_applicable"
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
        inner = [listed(name, one, order, record, title) for name, one in value.items()]
        return [table for tables in inner for table in tables]
    found = (
        [one for one in value if isinstance(one, Mapping)]
        if isinstance(value, list | tuple)
        else []
    )
    present = dict.fromkeys(name for one in found for name in one)
    asked = (order.get(key) or ()) if isinstance(order, Mapping) else ()
    columns = tuple(dict.fromkeys([*(name for name in asked if name in present), *present]))
    rows = tuple(
        row(*(_cell(name, one.get(name)) for name in columns), record=record) for one in found
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
        words = [_words(one) for one in value]
        return ("\n" if any(len(one) > LONG for one in words) else ", ").join(words) or DASH
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_words(one)}" for key, one in value.items() if one) or DASH
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
