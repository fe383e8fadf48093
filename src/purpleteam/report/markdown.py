"""The same chapters as Markdown: every number with its record's id in brackets."""

from __future__ import annotations

import html
import re

from purpleteam.report.alarm import alarm_of
from purpleteam.report.collect import Evidence
from purpleteam.report.view import (
    Badge,
    Block,
    Card,
    Cards,
    Cell,
    Chapter,
    Drawing,
    Figure,
    Gallery,
    Given,
    Heading,
    Inline,
    Missing,
    Mono,
    Number,
    Prose,
    Published,
    Reading,
    RecordLink,
    Table,
)

SPECIAL = re.compile(r"([\\`*_\[\]|#])")
TO_FILE = ("again", "records")
"""Chapters whose long tables Markdown leaves to the page and to the file of records."""
MANY = 3
"""A number that counts more records than this names the first and says that there are more."""


def to_markdown(evidence: Evidence, chapters: tuple[Chapter, ...]) -> str:
    """Return the report as Markdown."""
    status = _escape(str(evidence.info.get("status", "unknown")))
    head = [
        "# Purpleteam report",
        "",
        f"Run: {status}. In brackets: the record that backs a number.",
    ]
    if alarm := alarm_of(evidence.verification):
        head += ["", f"> **{alarm.title}.**", *(f"> - {_escape(line)}" for line in alarm.lines)]
    for chapter in chapters:
        head += ["", f"## {chapter.title}", "", chapter.lead]
        for block in chapter.blocks:
            if not (isinstance(block, Table) and block.folded and chapter.id in TO_FILE):
                head += ["", *_block(block)]
        if chapter.id in TO_FILE:
            head += ["", "Each record is a line of records.jsonl, and a row of report.html."]
    return "\n".join(head).rstrip() + "\n"


def _block(block: Block) -> list[str]:
    if isinstance(block, Table):
        return table(block)
    if isinstance(block, Figure):
        return [*table(block.table), "", cell(block.caption)]
    if isinstance(block, Cards):
        return [_card(card) for card in block.cards]
    if isinstance(block, Gallery):
        lines = [f"**{_escape(block.title)}** [{block.record}]", ""]
        return lines + [
            f"- {_escape(one.caption)} (`{one.path.replace('`', '')}`)" for one in block.pictures
        ]
    return [_sentence(block)]


def _card(card: Card) -> str:
    verdict = f"**{_escape(card.title)}: {_escape(card.verdict)}.**"
    return f"- {verdict} {inline(card.number)} {cell(card.sentence)}"


def _sentence(block: Prose | Heading | Missing | Reading | Drawing) -> str:
    if isinstance(block, Prose):
        text = cell(block.parts)
        return f"**{text}**" if block.style == "headline" else text
    if isinstance(block, Heading):
        return f"### {_escape(block.text)}"
    if isinstance(block, Missing):
        return f"> Not run: {_escape(block.text)}"
    if isinstance(block, Reading):
        return (
            f"> **What it means.** {block.means}\n>\n> **What it does not mean.** {block.means_not}"
        )
    return f"{_escape(block.title)}: see report.html [{block.record}]"


def table(block: Table) -> list[str]:
    """Return a table as Markdown lines."""
    lines = [f"**{_escape(block.caption)}**", ""]
    lines.append("| " + " | ".join(_escape(column) or " " for column in block.columns) + " |")
    lines.append("|" + " --- |" * len(block.columns))
    lines += ["| " + " | ".join(cell(one) or " " for one in row.cells) + " |" for row in block.rows]
    return [*lines, "", cell(block.note)] if block.note else lines


def cell(parts: Cell) -> str:
    """Return inlines as one line of Markdown."""
    return (
        " ".join("".join(map(inline, parts)).split(" "))
        .strip()
        .replace("\n", "<br>")
        .removesuffix("<br>")
    )


def inline(part: Inline) -> str:
    """Return one inline as Markdown."""
    if isinstance(part, Number):
        return _number(part)
    if isinstance(part, Given | Badge):
        return _escape(part.text)
    if isinstance(part, Mono):
        return "`" + part.text.replace("`", "'").replace("|", "\\|").replace("\n", " ") + "` "
    if isinstance(part, Published):
        return f" (report {_escape(part.seed)} published {inline(part.value)})"
    if isinstance(part, RecordLink):
        return f" [{part.id}]"
    return _escape(part)


def _number(number: Number) -> str:
    text = f"{number.text} ({number.interval})" if number.interval else number.text
    if not number.established:
        text = f"not established; survived so far: {text}"
    if number.flag:
        text += f" [!] {_escape(number.flag)}"
    ids = ", ".join(number.records[:MANY]) + (", …" if len(number.records) > MANY else "")
    return f"{text} [{ids}]"


def _escape(text: str) -> str:
    return html.escape(SPECIAL.sub(r"\\\1", text), quote=False)
