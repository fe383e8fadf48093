"""Threats: the system, what can go wrong with each part, and what checks have proved."""

from collections.abc import Iterator, Mapping
from typing import Any

from purpleteam.core.records import CheckResult, ThreatStatus
from purpleteam.core.schema import STRIDE, SYSTEM_MODEL
from purpleteam.report import view
from purpleteam.report.blocks import badge, checks
from purpleteam.report.chapter import CHAPTERS, Chapter
from purpleteam.report.chapters.scan import SEVERITIES
from purpleteam.report.collect import Evidence, items
from purpleteam.report.figures import only_drawing
from purpleteam.report.numbers import count

WORST_FIRST = ("open", "partly", "accepted", "mitigated", "not_applicable")
COLUMNS = ("Threat", "Part", "Inherent", "Remains", "Status", "Mitigations, and what proves them")
SHOWN = ("columns", "diagram", "stride", "cells", "threats", "summary", "course_tables")
"""Facts of a system model that have a form of their own; every other list is a folded table."""
ELSEWHERE = ("seed_tables",)
"""Facts of runs of schema 1 that a plug-in's chapter shows."""
IN_COLOUR = ("our_level", "remains", "inherent", "residual", "level", "computed", "status")
NAMES = ("id", "ours", "origin", "references", "all_of", "any_of")
LONG = 30
"""Characters from which the entries of a list stand one below the other."""


def _threats(evidence: Evidence) -> list[ThreatStatus]:
    return sorted(evidence.of(ThreatStatus), key=lambda record: record.threat)


def _names(evidence: Evidence) -> dict[str, str]:
    return {
        str(part.get("id")): str(part.get("name", part.get("id")))
        for note in evidence.notes(SYSTEM_MODEL)
        for part in (*items(note.facts, "elements"), *items(note.facts, "flows"))
    }


def _overview(evidence: Evidence) -> Iterator[view.Block]:
    """Yield how many threats are in which state, the diagram, and the worst state of each part."""
    threats, names = _threats(evidence), _names(evidence)
    counts: list[view.Inline] = []
    for status in WORST_FIRST:
        if ids := [threat.id for threat in threats if threat.status == status]:
            counts += [" · " if counts else "", count(ids), f" {status.replace('_', ' ')}"]
    if counts:
        yield view.Prose(tuple(counts), style="tally")
    title = "The system: parts, numbered flows, and trust boundaries in dashes"
    for model in evidence.notes(SYSTEM_MODEL):
        if svg := only_drawing(str(model.facts.get("diagram"))):
            yield view.Figure(title, svg, (view.RecordLink(model.id),), record=model.id)
    cells: dict[str, dict[str, list[str]]] = {}
    for threat in threats:
        kinds = cells.setdefault(threat.element, {})
        kinds.setdefault(threat.stride[:1].upper(), []).append(threat.status)
    rows = []
    places = {name: number for number, name in enumerate(names)}
    for element in sorted(cells, key=lambda element: places.get(element, 999)):
        worst: list[view.Inline] = []
        for letter in STRIDE:
            status = min(cells[element].get(letter, ()), key=WORST_FIRST.index, default=view.DASH)
            plain = {view.DASH: view.DASH, "not_applicable": "n/a"}.get(status)
            worst.append(plain or badge(status))
        rows.append(view.row(names.get(element, element), *worst))
    note = "The worst status of a cell's threats; a dash where the kind of part has no such cell."
    columns, caption = ("Part", *STRIDE.values()), "Each part against each kind of threat"
    yield view.Table(caption, columns, rows, note=(note,), dense=True)


def _remaining(evidence: Evidence) -> Iterator[view.Table]:
    """Yield what remains grave, open to the eye, and the rest folded."""
    names, notes = _names(evidence), evidence.notes(SYSTEM_MODEL)
    known = {check.check: check.id for check in evidence.of(CheckResult)}
    details = {str(item.get("id")): item for note in notes for item in items(note.facts, "threats")}
    threats = _threats(evidence)
    threats.sort(key=lambda threat: WORST_FIRST.index(threat.status))
    threats.sort(key=lambda threat: SEVERITIES.index(threat.residual))
    grave, rest, excused = list[view.Row](), list[view.Row](), list[view.Row]()
    for threat in threats:
        part = names.get(threat.element, threat.element)
        kind = STRIDE.get(threat.stride[:1].upper(), threat.stride)
        if threat.status == "not_applicable":
            excused.append(view.row(part, kind, threat.title, record=threat.id))
            continue
        references = details.get(threat.threat, {}).get("references") or ()
        named = ", ".join(map(str, (*references, *threat.origin)))
        public = (view.Mono(named),) if named else ()
        mitigations: list[view.Inline] = []
        for name, facts in threat.mitigations.items():
            mitigations += _mitigation(name, facts if isinstance(facts, Mapping) else {}, known)
        told = view.row(
            (view.Mono(threat.threat), " " + threat.title, *public, view.RecordLink(threat.id)),
            (part, ", " + kind.lower()),
            *map(badge, (threat.inherent, threat.residual, threat.status)),
            tuple(mitigations) or "none",
            record=threat.id,
        )
        (grave if threat.residual in ("high", "critical") else rest).append(told)
    yield view.Table("Threats that remain high or critical", COLUMNS, grave, stacked=True)
    yield view.Table("Threats of lower remaining risk", COLUMNS, rest, bool(grave), stacked=True)
    columns = ("Part", "Kind", "Why nothing can go wrong there")
    yield view.Table("Cells that do not apply", columns, excused, folded=True)


def _mitigation(name: str, facts: Mapping[str, Any], known: Mapping[str, str]) -> list[view.Inline]:
    status = str(facts.get("status", "unverified"))
    parts: list[view.Inline] = [badge(status), f" {facts.get('statement', name)}"]
    proofs = facts.get("checks")
    for check, verdict in proofs.items() if isinstance(proofs, Mapping) else ():
        parts += [" ", view.Mono(f"{check} {verdict}"), " "]
        parts += [view.RecordLink(known[str(check)])] if str(check) in known else []
    if unseen := facts.get("not_looked_at"):
        parts.append(f"No check of it looked at {'; '.join(map(str, unseen))}.")
    return [*parts, "\n"]


def _parts(evidence: Evidence) -> view.Blocks:
    """Return every other list of the system model."""
    tables = [
        listed(key, value, note.facts.get("columns"), note.id)
        for note in evidence.notes(SYSTEM_MODEL)
        for key, value in note.facts.items()
        if key not in (*SHOWN, *ELSEWHERE)
    ]
    title = view.Prose(("The system model, part by part",), "heading")
    return (title, tables) if any(tables) else None


def listed(key: str, value: Any, order: Any, record: str, title: str = "") -> list[view.Table]:
    """Return a folded table for each list of mappings, at whatever depth it stands.

    `order` has the columns of a list by its name, `title` is what stands before the name.
    """
    title = f"{title} {key}".strip()
    if isinstance(value, Mapping):
        inner = (listed(name, lists, order, record, title) for name, lists in value.items())
        return [table for tables in inner for table in tables]
    lines = items({key: value}, key)
    present = dict.fromkeys(name for line in lines for name in line)
    asked = (order.get(key) or ()) if isinstance(order, Mapping) else ()
    columns = dict.fromkeys([*(name for name in asked if name in present), *present])
    cells = [[_cell(name, line.get(name)) for name in columns] for line in lines]
    rows = [view.row(*row, record=record) for row in cells]
    headings = [name.replace("_", " ") for name in columns]
    caption, link = (title[:1].upper() + title[1:]).replace("_", " "), (view.RecordLink(record),)
    return [view.Table(caption, headings, rows, folded=True, note=link, dense=True)] if rows else []


def _cell(name: str, value: Any) -> view.Inline:
    text = _words(value)
    if text != view.DASH and name in IN_COLOUR:
        return badge(text)
    return view.Mono(text) if text != view.DASH and name in NAMES else text


def _words(value: Any) -> str:
    text = "" if value is None else str(value)
    if isinstance(value, list | tuple):
        words = list(map(_words, value))
        text = ("\n" if any(len(word) > LONG for word in words) else ", ").join(words)
    elif isinstance(value, Mapping):
        text = "; ".join(f"{key}: {_words(item)}" for key, item in value.items() if item)
    return text or view.DASH


CHAPTER = Chapter(
    title="Threats",
    lead="What can go wrong with each part of the system, and which answers are proved.",
    parts=(_overview, _remaining, _parts, checks("Checks of the record itself", "run")),
    means="A mitigation counts only while a check that ran proves it, and the check only after it "
    "failed on an example made to fail. Levels are computed from likelihood and impact by one "
    "matrix, and lowered only by proved mitigations.",
    means_not="A list of threats is never complete, and a proved mitigation is proved for the "
    "files and the app that the check looked at. Open rows are shown because they are open, not "
    "because they were forgotten.",
    notes=(SYSTEM_MODEL,),
    kinds=(ThreatStatus,),
    stage="threats",
    gap="Threats to the system around the model: none was modelled",
    try_="purple threats --run .",
    after="scan",
)
CHAPTERS.register("threats")(CHAPTER)
