"""The system model of the run: its drawing, the seeds' tables beside ours, and its parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from purpleteam.core.records import Note
from purpleteam.report.chapters.scan import severity_badge
from purpleteam.report.figures import only_drawing
from purpleteam.report.view import (
    DASH,
    Badge,
    Block,
    Drawing,
    Heading,
    Inline,
    Mono,
    RecordLink,
    Table,
    row,
)

STATES = {"mitigated": "good", "verified": "good", "partly": "warn", "open": "bad", "failed": "bad"}
TOLD = ("columns", "diagram", "stride", "cells", "threats", "summary", "seed_tables")
"""What the chapter shows in a form of its own; every other list becomes a folded table."""
LEVELS = ("our_level", "remains", "inherent", "residual", "level", "computed")
NAMES = ("id", "ours", "origin", "references", "all_of", "any_of")
LONG = 30
"""Characters from which the entries of a list stand one below the other."""


def system_drawing(note: Note) -> list[Block]:
    """Return the data-flow diagram, where the note has one."""
    found = note.facts.get("diagram")
    if not isinstance(found, str) or not (svg := only_drawing(found)):
        return []
    title = "The system: parts, numbered flows, and trust boundaries in dashes"
    return [Drawing(title=title, svg=svg, record=note.id)]


def system_tables(note: Note) -> list[Block]:
    """Return the seeds' tables beside ours, then all other lists of the model."""
    order = note.facts.get("columns")
    columns = order if isinstance(order, Mapping) else {}
    seeds = _tables("Report", note.facts.get("seed_tables"), columns, note.id)
    parts = [
        table
        for key, value in note.facts.items()
        if key not in TOLD
        for table in _tables(key, value, columns, note.id)
    ]
    blocks: list[Block] = []
    if seeds:
        blocks += [Heading("The threats of the two seed reports, each beside ours"), *seeds]
    if parts:
        blocks += [Heading("The system model, part by part"), *parts]
    return blocks


def _tables(
    key: str, value: Any, order: Mapping[str, Any], record: str, title: str = ""
) -> list[Table]:
    """Return a folded table for each list of rows, at whatever depth it stands."""
    title = f"{title} {key}".strip()
    if isinstance(value, Mapping):
        inner = [_tables(name, one, order, record, title) for name, one in value.items()]
        return [table for tables in inner for table in tables]
    listed = value if isinstance(value, list | tuple) else []
    found = [one for one in listed if isinstance(one, Mapping)]
    present = dict.fromkeys(name for one in found for name in one)
    asked = [name for name in order.get(key) or () if name in present]
    columns = tuple(dict.fromkeys([*asked, *present]))
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
        return Badge(text, STATES.get(text, "quiet"))
    return Mono(text) if name in NAMES else text


def _words(value: Any) -> str:
    if isinstance(value, list | tuple):
        words = [_words(one) for one in value]
        return ("\n" if any(len(one) > LONG for one in words) else ", ").join(words) or DASH
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_words(one)}" for key, one in value.items() if one) or DASH
    return DASH if value is None or value == "" else str(value)
