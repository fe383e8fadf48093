"""The system model of the run: its drawing, its parts, and the two seeds' own tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from purpleteam.core.records import Note
from purpleteam.report.chapters.scan import severity_badge
from purpleteam.report.collect import items
from purpleteam.report.figures import only_drawing
from purpleteam.report.view import (
    DASH,
    Badge,
    Block,
    Cell,
    Drawing,
    Heading,
    Inline,
    Mono,
    RecordLink,
    Row,
    Table,
    row,
)

__all__ = ["system_drawing", "system_tables"]

STATES = {"mitigated": "good", "verified": "good", "partly": "warn", "open": "bad", "failed": "bad"}
TOLD = ("diagram", "stride", "cells", "threats", "summary", "seed_a", "seed_b", "seed_b_appendix")
"""What the chapter shows in a form of its own; every other list becomes a plain table."""
LETTERS = {"S": "Spoofing", "T": "Tampering", "R": "Repudiation"} | {
    "I": "Information disclosure",
    "D": "Denial of service",
    "E": "Elevation of privilege",
}


def system_drawing(note: Note) -> list[Block]:
    """Return the data-flow diagram, where the note has one."""
    found = note.facts.get("diagram")
    if not isinstance(found, str):
        return []
    svg = only_drawing(found)
    title = "The system: parts, numbered flows, and trust boundaries in dashes"
    return [Drawing(title=title, svg=svg, record=note.id)] if svg else []


def system_tables(note: Note) -> list[Block]:
    """Return the seeds' tables beside ours, then all other lists of the model."""
    seeds = [made(note) for made in (_seed_a, _seed_b, _appendix)]
    blocks: list[Block] = [table for table in seeds if table is not None]
    if blocks:
        blocks.insert(0, Heading("The seeds' own threat tables, each beside ours"))
    others = [
        table
        for key, value in note.facts.items()
        if key not in TOLD
        for table in _plain_tables(key, value, note.id)
    ]
    return [*blocks, Heading("The system model, part by part"), *others] if others else blocks


def _seed_a(note: Note) -> Table | None:
    rows = tuple(_seed_a_row(one, note.id) for one in items(note.facts, "seed_a"))
    caption = "Report A: elements and kinds of threat, with our status"
    return _seed_table(caption, ("Element", *LETTERS.values()), rows, note.id)


def _seed_a_row(one: Mapping[str, Any], record: str) -> Row:
    cells: dict[str, list[Inline]] = {letter: [] for letter in LETTERS}
    words = {"threat": "marked. ", "denied": "denied. ", "blank": "left blank. "}
    for said in items(one, "cells"):
        kind, status = str(said.get("kind")), str(said.get("status") or "")
        there = cells.setdefault(str(said.get("stride")), [])
        there += [words.get(kind, ""), _status(status), "\n"] if status else [words.get(kind, kind)]
    found = (tuple(parts) or (DASH,) for letter, parts in cells.items() if letter in LETTERS)
    return row(str(one.get("element", "")), *found, record=record)


def _seed_b(note: Note) -> Table | None:
    rows = tuple(
        row(
            str(one.get("name", one.get("stride", ""))),
            f"{one.get('table', DASH)}; {one.get('analysis', DASH)}",
            _level(one.get("inherent")),
            _level(one.get("residual")),
            _lines(items(one, "threats")),
            _lines(items(one, "mitigations")),
            record=note.id,
        )
        for one in items(note.facts, "seed_b")
    )
    columns = ("Kind", "Its levels", "Ours, inherent", "Remains", "Its threats", "Its mitigations")
    return _seed_table(
        "Report B: kinds of threat, with our levels and status", columns, rows, note.id
    )


def _appendix(note: Note) -> Table | None:
    rows = tuple(
        row(
            str(one.get("name", one.get("stride", ""))),
            str(one.get("likelihood", DASH)),
            str(one.get("impact", DASH)),
            str(one.get("said", DASH)),
            (_level(one.get("computed")), " agrees" if one.get("agrees") else " differs"),
            _level(one.get("inherent")),
            _level(one.get("residual")),
            record=note.id,
        )
        for one in items(note.facts, "seed_b_appendix")
    )
    columns = ("Kind", "Likelihood", "Impact", "Level it states", "Level of its own ratings")
    caption = "Report B, appendix: ratings and the level that they give"
    return _seed_table(caption, (*columns, "Ours, inherent", "Remains"), rows, note.id)


def _seed_table(
    caption: str, columns: tuple[str, ...], rows: tuple[Row, ...], record: str
) -> Table | None:
    link = (RecordLink(record),)
    return Table(caption=caption, columns=columns, rows=rows, note=link) if rows else None


def _lines(said: Sequence[Mapping[str, Any]]) -> Cell:
    parts: list[Inline] = []
    for one in said:
        status = str(one.get("status") or "")
        parts += [str(one.get("says", "")), " ", *([_status(status)] if status else []), "\n"]
    return tuple(parts) or (DASH,)


def _status(status: str) -> Badge:
    return Badge(status.replace("_", " "), STATES.get(status, "quiet"))


def _level(level: Any) -> Inline:
    return severity_badge(str(level)) if level else DASH


def _plain_tables(key: str, value: Any, record: str) -> list[Table]:
    """Return a table for each list of rows, at whatever depth the system model has it."""
    if isinstance(value, Mapping):
        inner = [_plain_tables(f"{key}: {name}", one, record) for name, one in value.items()]
        return [table for tables in inner for table in tables]
    found = (
        [one for one in value if isinstance(one, Mapping)]
        if isinstance(value, list | tuple)
        else []
    )
    if not found:
        return []
    columns = tuple(
        name for name in dict.fromkeys(name for one in found for name in one) if name != "at"
    )
    return [
        Table(
            caption=key.replace("_", " ").capitalize(),
            columns=tuple(name.replace("_", " ") for name in columns),
            rows=tuple(
                row(*(_plain(name, one.get(name)) for name in columns), record=record)
                for one in found
            ),
            folded=True,
            note=(RecordLink(record),),
            dense=True,
        )
    ]


def _plain(name: str, value: Any) -> Inline:
    text = _words(value)
    if name == "status" and text != DASH:
        return _status(text)
    return Mono(text) if name in ("id", "ours", "origin", "checks") and text != DASH else text


def _words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_words(one) for one in value) or DASH
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_words(one)}" for key, one in value.items() if one) or DASH
    return DASH if value is None or value == "" else str(value)
