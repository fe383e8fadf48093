"""The same page as Markdown: every number with its record's id in brackets."""

import html
import re
from collections.abc import Iterable

from purpleteam.report import view
from purpleteam.report.view import Block, Cell, Inline, Number, Section, Table

SPECIAL = re.compile(r"([\\`*_\[\]|#])")
TO_FILE = "records"
"""The section whose long tables Markdown leaves to the page and to the file of records."""
MANY = 3
"""A number that counts more records than this names the first and says that there are more."""
STYLES = {"headline": "**{}**", "heading": "### {}", "missing": "> Not run: {}"}
STYLES["verdict"] = STYLES["headline"]
"""How a paragraph of that style is written."""
Banner = tuple[str, str, list[str]]
"""What stands above everything else where a run does not pass: its tone, its title, its lines."""


def to_markdown(title: str, status: str, banner: Banner | None, sections: list[Section]) -> str:
    """Return the page as Markdown."""
    head = f"Run: {_escape(status)}. In brackets: the record that backs a number."
    lines = [f"# {_escape(title)}", "", head]
    if banner:
        lines += ["", f"> **{banner[1]}.**", *(f"> - {_escape(line)}" for line in banner[2])]
    for section in sections:
        lines += ["", f"## {section.title}"]
        lines += ["", section.lead] if section.lead else []
        for block in section.blocks:
            if not (isinstance(block, Table) and block.folded and section.id == TO_FILE):
                lines += ["", *_block(block)]
        if section.id == TO_FILE:
            lines += ["", "Each record is a line of records.jsonl, and opens in report.html."]
    return "\n".join(lines).rstrip() + "\n"


def _block(block: Block) -> list[str]:
    match block:
        case Table():
            return table(block)
        case view.Figure():
            if block.table is not None:
                return [*table(block.table), "", cell(block.caption)]
            return [f"{_escape(block.title)}: see report.html [{block.record}]"]
        case view.Prose():
            return [STYLES.get(block.style, "{}").format(cell(block.parts))]
        case view.Steps():
            steps = [f"{number}. {cell(step)}" for number, step in enumerate(block.steps, 1)]
            return [f"**{_escape(block.title)}**", "", *steps]
        case view.Cards():
            return [
                f"- **{_escape(card.title)}: {_escape(card.verdict)}.** "
                f"{inline(card.number)} {cell(card.sentence)}"
                for card in block.cards
            ]
        case view.Gallery():
            return [f"**{_escape(block.title)}** [{block.record}]", ""] + [
                f"- {_escape(picture.caption)} (`{picture.path.replace('`', '')}`)"
                for picture in block.pictures
            ]
        case _:
            means = f"> **What it means.** {block.means}"
            return [means, ">", f"> **What it does not mean.** {block.means_not}"]


def table(block: Table) -> list[str]:
    """Return a table as Markdown lines."""
    lines = [f"**{_escape(block.caption)}**", "", _line(map(_escape, block.columns))]
    lines.append("|" + " --- |" * len(block.columns))
    lines += [_line(map(cell, row.cells)) for row in block.rows]
    return [*lines, "", cell(block.note)] if block.note else lines


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(text or " " for text in cells) + " |"


def cell(parts: Cell) -> str:
    """Return inlines as one line of Markdown."""
    text = " ".join("".join(map(inline, parts)).split(" ")).strip()
    return text.replace("\n", "<br>").removesuffix("<br>")


def inline(part: Inline) -> str:
    """Return one inline as Markdown."""
    if isinstance(part, str):
        return _escape(part)
    if isinstance(part, Number):
        text = f"{part.text} ({part.interval})" if part.interval else part.text
        text = text if part.established else f"not established; survived so far: {text}"
        text += f" [!] {_escape(part.flag)}" if part.flag else ""
        more = ", …" if len(part.records) > MANY else ""
        return f"{text} [{', '.join(part.records[:MANY])}{more}]"
    if part.kind in ("mono", "command"):
        return "`" + part.text.replace("`", "'").replace("|", "\\|").replace("\n", " ") + "` "
    return f" [{part.text}]" if part.kind == "link" else _escape(part.text)


def _escape(text: str) -> str:
    return html.escape(SPECIAL.sub(r"\\\1", text), quote=False)
