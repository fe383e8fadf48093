"""What the source rules say of lines that were written before anybody read the rules.

tests/scan/unseen/*.txt hold small programs (README.md there says how they are marked). The first
measurement of each is what is true of code that nobody has seen; later ones come after mending.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from purpleteam.core.records import Finding
from purpleteam.core.statistics import Rate
from purpleteam.scan import scan, severity_at_least

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "scan" / "unseen"
NEAR = {"here or below": (0, 2), "here or above": (-2, 0), "on any line": (-10_000, 10_000)}


@dataclass(frozen=True)
class Line:
    """A marked line: the lines of its file whose finding counts as one of it."""

    name: str
    number: int
    low: int
    high: int
    bad: bool
    text: str


def write(corpus: Path, folder: Path) -> list[Line]:
    """Write the programs of a set under a folder; return the marked lines, numbered from one."""
    marked = []
    for part in re.split(r"(?m)^==== ", corpus.read_text(encoding="utf-8"))[1:]:
        name, _, text = part.partition("\n")
        lines = text.splitlines()
        marked += _marks(name, lines)
        kept = [re.sub(r"\s*# (?:bad|fine)(?: .*)?$|~example~|~", "", line) for line in lines]
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".ipynb" and not text.startswith("{"):
            path.write_text(_notebook(kept), encoding="utf-8")
        else:
            path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return marked


def _marks(name: str, lines: list[str]) -> list[Line]:
    spans = _spans("\n".join(lines)) if name.endswith(".py") else {}
    marked = []
    for number, line in enumerate(lines, 1):
        mark = re.search(r"# (bad|fine)(?: (.*))?$", line)
        if mark:
            low, high = spans.get(number, (number, number)) if mark[1] == "bad" else (number,) * 2
            before, after = NEAR.get(mark[2] or "", (0, 0))
            marked.append(
                Line(name, number, low + before, high + after, mark[1] == "bad", line.strip())
            )
    return marked


def _spans(text: str) -> dict[int, tuple[int, int]]:
    """Return the lines of the statement on each line; of a compound one, of its head."""
    spans = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            end = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno
            spans.update(dict.fromkeys(range(node.lineno, end + 1), (node.lineno, end)))
    return spans


def _notebook(lines: list[str]) -> str:
    """Return a notebook; each cell keeps the numbers of its lines by empty ones before them."""
    cells: list[list[str]] = [[]]
    for number, line in enumerate(lines):
        if line == "# %%":
            cells.append([""] * (number + 1))
        else:
            cells[-1].append(line)
    return json.dumps({
        "cells": [
            {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None,
             "source": "\n".join(cell)} for cell in cells
        ],
        "metadata": {}, "nbformat": 4, "nbformat_minor": 5,
    })  # fmt: skip


def measure(corpus: Path, folder: Path) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return the rates of one set, and its lines that were missed, called bad, or not marked."""
    marked = write(corpus, folder)
    findings = scan([folder]).findings
    bad, fine = ([one for one in marked if one.bad is kind] for kind in (True, False))
    rates, told = {}, {}
    for word, least in (("medium or worse", "medium"), ("of any severity", "note")):
        places = {
            (str(one.place["path"]).partition("/")[2], _line(one))
            for one in findings if severity_at_least(one.severity, least)
        }  # fmt: skip
        hit = {
            one: any(name == one.name and one.low <= number <= one.high for name, number in places)
            for one in marked
        }
        rates[word] = {
            "found": Rate.of(sum(hit[one] for one in bad), len(bad)).to_json(),
            "false_alarms": Rate.of(sum(hit[one] for one in fine), len(fine)).to_json(),
        }
        told[f"missed, {word}"] = [_text(one) for one in bad if not hit[one]]
        told[f"false, {word}"] = [_text(one) for one in fine if hit[one]]
    known = {(one.name, number) for one in marked for number in range(
        max(one.low, 0), min(one.high, one.number + 60) + 1)}  # fmt: skip
    told["not marked"] = sorted(
        f"{path}:{_line(one)}: {one.rule} {one.severity} {one.message[:80]}"
        for one in findings
        if ((path := str(one.place["path"]).partition("/")[2]), _line(one)) not in known
    )
    return rates, told


def _line(one: Finding) -> int:
    """Return the line of a finding in its file, or in a notebook that `_notebook` made."""
    line = int(one.place.get("line", 0))
    return max(line, int(one.place.get("file_line", 0)))


def _text(one: Line) -> str:
    return f"{one.name}:{one.number}: {one.text}"


def unseen(before: dict[str, Any], work: Path) -> dict[str, Any]:
    """Return the rates of each set: when it was first measured, which is kept, and now."""
    rows = {}
    for corpus in sorted(FOLDER.glob("*.txt")):
        rates, told = measure(corpus, work / corpus.stem)
        for head, lines in told.items():
            print(f"{corpus.stem}, {head}: {len(lines)}", *lines, sep="\n  ")
        first = before.get(corpus.stem, {}).get("first", rates)
        rows[corpus.stem] = {"first": first, "now": rates}
    return rows
