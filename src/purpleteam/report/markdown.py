"""The same page as Markdown: every number with its record's id in brackets."""

from __future__ import annotations

import html
import re

from purpleteam.report.view import (
    Badge,
    Block,
    Cards,
    Cell,
    Command,
    Drawing,
    Figure,
    Gallery,
    Given,
    Heading,
    Inline,
    Jump,
    Missing,
    Mono,
    Number,
    Page,
    Prose,
    Reading,
    RecordLink,
    Section,
    Steps,
    Table,
)

SPECIAL = re.compile(r"([\\`*_\[\]|#])")
TO_FILE = "records"
"""The section whose long tables Markdown leaves to the page and to the file of records."""
MANY = 3
"""A number that counts more records than this names the first and says that there are more."""


def to_markdown(page: Page) -> str:
    """Return the page as Markdown."""
    facts = dict(page.facts)
    head = [f"# {_escape(page.title)}", ""]
    head.append(
        f"Run: {_escape(facts.get('Run', 'unknown'))}. In brackets: the record that backs a number."
    )
    if page.banner:
        lines = (f"> - {_escape(line)}" for line in page.banner.lines)
        head += ["", f"> **{page.banner.title}.**", *lines]
    for section in page.sections:
        head += ["", *_section(section)]
    return "\n".join(head).rstrip() + "\n"


def _section(section: Section) -> list[str]:
    lines = [f"## {section.title}"]
    lines += ["", section.lead] if section.lead else []
    for block in section.blocks:
        if not (isinstance(block, Table) and block.folded and section.id == TO_FILE):
            lines += ["", *_block(block)]
    if section.id == TO_FILE:
        lines += ["", "Each record is a line of records.jsonl, and opens in report.html."]
    return lines


def _block(block: Block) -> list[str]:
    if isinstance(block, Table):
        return table(block)
    if isinstance(block, Figure):
        return [*table(block.table), "", cell(block.caption)]
    if isinstance(block, Steps):
        return [
            f"**{_escape(block.title)}**",
            "",
            *(f"{number}. {cell(step)}" for number, step in enumerate(block.steps, 1)),
        ]
    if isinstance(block, Cards):
        return [
            f"- **{_escape(card.title)}: {_escape(card.verdict)}.** "
            f"{inline(card.number)} {cell(card.sentence)}"
            for card in block.cards
        ]
    if isinstance(block, Gallery):
        return [f"**{_escape(block.title)}** [{block.record}]", ""] + [
            f"- {_escape(picture.caption)} (`{picture.path.replace('`', '')}`)"
            for picture in block.pictures
        ]
    return [_sentence(block)]


def _sentence(block: Prose | Heading | Missing | Reading | Drawing) -> str:
    if isinstance(block, Prose):
        text = cell(block.parts)
        return f"**{text}**" if block.style in ("verdict", "headline") else text
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
    lines += [
        "| " + " | ".join(cell(parts) or " " for parts in row.cells) + " |" for row in block.rows
    ]
    return [*lines, "", cell(block.note)] if block.note else lines


def cell(parts: Cell) -> str:
    """Return inlines as one line of Markdown."""
    text = " ".join("".join(map(inline, parts)).split(" ")).strip()
    return text.replace("\n", "<br>").removesuffix("<br>")


def inline(part: Inline) -> str:
    """Return one inline as Markdown."""
    if isinstance(part, Number):
        return _number(part)
    if isinstance(part, Given | Badge | Jump):
        return _escape(part.text)
    if isinstance(part, Mono | Command):
        return "`" + part.text.replace("`", "'").replace("|", "\\|").replace("\n", " ") + "` "
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
