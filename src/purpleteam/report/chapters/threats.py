"""Threats: the system, what can go wrong with each part, and what checks have proved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from purpleteam.core.records import CheckResult, Note, ThreatStatus
from purpleteam.report.chapters.scan import severity_badge
from purpleteam.report.chapters.system import system_drawing, system_tables
from purpleteam.report.collect import Evidence, items
from purpleteam.report.numbers import count
from purpleteam.report.view import (
    DASH,
    Badge,
    Block,
    Cell,
    Chapter,
    Inline,
    Missing,
    Mono,
    Prose,
    Reading,
    RecordLink,
    Row,
    Table,
    row,
)

MEANS = (
    "A mitigation counts only while a check that ran proves it, and the check only after it failed "
    "on an example made to fail. Levels are computed from likelihood and impact by one matrix, "
    "and lowered only by proved mitigations."
)
MEANS_NOT = (
    "A list of threats is never complete, and a proved mitigation is proved for the files and the "
    "app that the check looked at. Open rows are shown because they are open, not because they "
    "were forgotten."
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
LEVELS = ("note", "low", "medium", "high", "critical")
GRAVE = ("high", "critical")
COLUMNS = ("Threat", "Part", "Inherent", "Remains", "Status", "Mitigations, and what proves them")
WORST_FIRST = ("open", "partly", "accepted", "mitigated", "not_applicable")


def chapter(evidence: Evidence) -> Chapter:
    """Return the chapter."""
    threats, notes = evidence.threats(), evidence.notes("system-model")
    blocks: list[Block] = []
    if threats:
        blocks.append(_summary(threats))
    else:
        blocks.append(Missing("No threat was modelled in this run."))
    names = {name: text for note in notes for name, text in _names(note).items()}
    for note in notes:
        blocks += system_drawing(note)
    if threats:
        blocks.append(_matrix(threats, names))
        real = [one for one in threats if one.status != "not_applicable"]
        details = {
            str(one.get("id")): one for note in notes for one in items(note.facts, "threats")
        }
        blocks += _tables(evidence, real, names, details)
        blocks += _not_applicable([one for one in threats if one.status == "not_applicable"], names)
    for note in notes:
        blocks += system_tables(note)
    blocks.append(Reading(MEANS, MEANS_NOT))
    lead = "What can go wrong with each part of the system, and which answers are proved."
    return Chapter(id="threats", title="Threats", lead=lead, blocks=tuple(blocks))


def _summary(threats: Sequence[ThreatStatus]) -> Prose:
    parts: list[Inline] = []
    for status in WORST_FIRST:
        ids = [one.id for one in threats if one.status == status]
        if ids:
            parts += [" · " if parts else "", count(ids), f" {_word(status)}"]
    return Prose(tuple(parts), style="tally")


def _word(status: str) -> str:
    return status.replace("_", " ")


def _names(note: Note) -> dict[str, str]:
    parts = [*items(note.facts, "elements"), *items(note.facts, "flows")]
    return {str(part.get("id")): str(part.get("name", part.get("id"))) for part in parts}


def _matrix(threats: Sequence[ThreatStatus], names: Mapping[str, str]) -> Table:
    cells: dict[str, dict[str, list[ThreatStatus]]] = {}
    place = {name: number for number, name in enumerate(names)}
    for one in threats:
        cells.setdefault(one.element, {}).setdefault(one.stride[:1].upper(), []).append(one)
    rows = tuple(
        row(names.get(element, element), *(_cell(found.get(letter, [])) for letter in STRIDE))
        for element, found in sorted(cells.items(), key=lambda pair: place.get(pair[0], 999))
    )
    return Table(
        caption="Each part against each kind of threat",
        columns=("Part", *STRIDE.values()),
        rows=rows,
        note=(
            "The worst status of a cell's threats; a dash where the kind of part has no such cell.",
        ),
        dense=True,
    )


def _cell(found: Sequence[ThreatStatus]) -> Cell:
    if not found:
        return (DASH,)
    worst = min(found, key=lambda one: WORST_FIRST.index(one.status))
    if worst.status == "not_applicable":
        return ("n/a",)
    return (Badge(_word(worst.status), TONES.get(worst.status, "quiet")),)


def _tables(
    evidence: Evidence,
    threats: Sequence[ThreatStatus],
    names: Mapping[str, str],
    details: Mapping[str, Mapping[str, Any]],
) -> list[Block]:
    """Return what remains grave, open to the eye, and the rest folded."""
    checks = {one.check: one for one in evidence.of(CheckResult)}
    ordered = sorted(
        threats,
        key=lambda one: (-LEVELS.index(one.residual), WORST_FIRST.index(one.status), one.threat),
    )
    grave = [one for one in ordered if one.residual in GRAVE]
    rest = [one for one in ordered if one.residual not in GRAVE]
    captions = {
        "Threats that remain high or critical": (grave, False),
        "Threats of which less remains": (rest, bool(grave)),
    }
    return [
        Table(
            caption=caption,
            columns=COLUMNS,
            rows=tuple(_row(one, names, checks, details.get(one.threat, {})) for one in found),
            folded=folded,
        )
        for caption, (found, folded) in captions.items()
        if found
    ]


def _row(
    one: ThreatStatus,
    names: Mapping[str, str],
    checks: Mapping[str, CheckResult],
    detail: Mapping[str, Any],
) -> Row:
    kind = STRIDE.get(one.stride[:1].upper(), one.stride)
    named = [str(ref) for ref in detail.get("references") or ()]
    public = (Mono(", ".join([*named, *one.origin])),) if named or one.origin else ()
    mitigations: list[Inline] = []
    for name, facts in one.mitigations.items():
        mitigations += _mitigation(name, facts if isinstance(facts, Mapping) else {}, checks)
    return row(
        (Mono(one.threat), " " + one.title, *public, RecordLink(one.id)),
        (names.get(one.element, one.element), ", " + kind.lower()),
        severity_badge(one.inherent),
        severity_badge(one.residual),
        Badge(_word(one.status), TONES.get(one.status, "quiet")),
        tuple(mitigations) or "none",
        record=one.id,
    )


def _mitigation(
    name: str, facts: Mapping[str, Any], known: Mapping[str, CheckResult]
) -> list[Inline]:
    status = str(facts.get("status", "unverified"))
    parts: list[Inline] = [
        Badge(status, TONES.get(status, "quiet")),
        f" {facts.get('statement', name)}",
    ]
    checks = facts.get("checks")
    for check, verdict in checks.items() if isinstance(checks, Mapping) else ():
        parts += [" ", Mono(f"{check} {verdict}"), " "]
        if str(check) in known:
            parts.append(RecordLink(known[str(check)].id))
    parts.append("\n")
    return parts


def _not_applicable(threats: Sequence[ThreatStatus], names: Mapping[str, str]) -> list[Block]:
    if not threats:
        return []
    rows = tuple(
        row(
            names.get(one.element, one.element),
            STRIDE.get(one.stride[:1].upper(), one.stride),
            one.title,
            record=one.id,
        )
        for one in threats
    )
    columns = ("Part", "Kind", "Why nothing can go wrong there")
    return [Table(caption="Cells that do not apply", columns=columns, rows=rows, folded=True)]
