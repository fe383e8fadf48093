"""Scan: findings in code and files, what was scanned, and what was not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from purpleteam.core.records import Finding, Note
from purpleteam.core.schema import SCAN
from purpleteam.report.blocks import checks
from purpleteam.report.chapter import CHAPTERS, Chapter
from purpleteam.report.collect import Evidence
from purpleteam.report.view import (
    DASH,
    Badge,
    Block,
    Given,
    Inline,
    Mono,
    Prose,
    RecordLink,
    Row,
    Table,
    row,
)

TONES = {"critical": "bad", "high": "bad", "medium": "warn"}
MANY = 25
"""A table of more findings is folded."""


def severity_badge(severity: str) -> Badge:
    """Return a severity or a level of risk as a badge."""
    return Badge(severity, TONES.get(severity, "quiet"))


def _findings(evidence: Evidence) -> list[Block]:
    findings = evidence.findings()
    if not findings:
        said = Prose(("The scanners that ran reported nothing in the files below.",))
        return [said] if evidence.notes(SCAN) else []
    return [
        Table(
            caption="Findings, the gravest first",
            columns=("Rule", "Severity", "Confidence", "Place", "What it says, and what to do"),
            rows=tuple(_row(finding) for finding in findings),
            folded=len(findings) > MANY,
            stacked=True,
        )
    ]


def _row(finding: Finding) -> Row:
    rule: tuple[Inline, ...] = (Mono(finding.rule), RecordLink(finding.id))
    line, path = finding.place.get("line"), str(finding.place.get("path", DASH))
    return row(
        (rule[0], Mono(finding.cwe), rule[1]) if finding.cwe else rule,
        severity_badge(finding.severity),
        finding.confidence,
        Mono(path if line is None else f"{path}:{line}"),
        (finding.message, f" ({finding.tool})", f"\n{finding.fix}" if finding.fix else ""),
        record=finding.id,
    )


def _scanned(evidence: Evidence) -> list[Block]:
    return [block for note in evidence.notes(SCAN) for block in _read(note)]


def _read(note: Note) -> list[Block]:
    """Return how many files were read, skipped and failed on, then which, folded."""
    lists = {
        key: list(value)
        for key, value in note.facts.items()
        if isinstance(value, list | tuple) and key not in ("paths", "findings")
    }
    paths = ", ".join(map(str, note.facts.get("paths") or ())) or DASH
    single = {key: v for key, v in note.facts.items() if isinstance(v, int | str)}
    numbers = {key: str(len(value)) for key, value in lists.items()} | single
    rows = [row("paths", paths, record=note.id)]
    rows += [row(key, Given(str(value), note.id), record=note.id) for key, value in numbers.items()]
    table = Table(
        caption="What was scanned",
        columns=("What", "How many"),
        rows=tuple(rows),
        note=(RecordLink(note.id),),
    )
    return [table, *(_listed(key, value, note.id) for key, value in lists.items() if value)]


def _listed(key: str, value: list[Any], record: str) -> Table:
    rows = tuple(
        row(Mono(str(one.get("path", DASH))), str(one.get("reason", DASH)), record=record)
        if isinstance(one, Mapping)
        else row(Mono(str(one)), DASH, record=record)
        for one in value
    )
    columns = ("File", "Reason")
    return Table(caption=f"Files {key}", columns=columns, rows=rows, folded=True, dense=True)


CHAPTERS.register("scan")(
    Chapter(
        title="Scan",
        lead="What static analysis sees in the code, the model files and the dependencies.",
        parts=(_findings, _scanned, checks("Checks of the code", "scan", "code")),
        means="A finding is a place that a rule matched, with how grave it would be and how sure "
        "the rule is. Files that were skipped or could not be read are counted as such, never as "
        "clean.",
        means_not="No findings means that these rules matched nothing in these files. It does not "
        "mean that the code is safe, and it says nothing about a file that was not scanned.",
        notes=(SCAN,),
        kinds=(Finding,),
        checks=("scan", "code"),
        stage="scan",
        gap="Code and model files: no scanner ran",
        try_="purple scan .",
        after="backdoors",
    )
)
