"""Scan: findings in code and files, what was scanned, and what was not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from purpleteam.core.records import Finding, Note
from purpleteam.report.blocks import checks_block
from purpleteam.report.collect import Evidence
from purpleteam.report.view import (
    DASH,
    Badge,
    Block,
    Chapter,
    Given,
    Inline,
    Missing,
    Mono,
    Reading,
    RecordLink,
    Row,
    Table,
    row,
)

MEANS = (
    "A finding is a place that a rule matched, with how grave it would be and how sure the rule "
    "is. Files that were skipped or could not be read are counted as such, never as clean."
)
MEANS_NOT = (
    "No findings means that these rules matched nothing in these files. It does not mean that the "
    "code is safe, and it says nothing about a file that was not scanned."
)
TONES = {"critical": "bad", "high": "bad", "medium": "warn"}


def severity_badge(severity: str) -> Badge:
    """Return a severity or a level of risk as a badge."""
    return Badge(severity, TONES.get(severity, "quiet"))


def chapter(evidence: Evidence) -> Chapter:
    """Return the chapter."""
    findings, notes = evidence.findings(), evidence.notes("scan")
    blocks: list[Block] = []
    if not findings and not notes:
        blocks.append(Missing("Nothing was scanned: no scanner left a record in this run."))
    elif not findings:
        blocks.append(Missing("The scanners that ran reported nothing in the files below."))
    else:
        blocks.append(_table(findings))
    for note in notes:
        blocks += _scanned(note)
    checks = evidence.checks("scan", "code")
    blocks.append(checks_block(checks, "Checks of the code", "No check of the code was run."))
    blocks.append(Reading(MEANS, MEANS_NOT))
    lead = "What static analysis sees in the code, the model files and the dependencies."
    return Chapter(id="scan", title="Scan", lead=lead, blocks=tuple(blocks))


def _scanned(note: Note) -> list[Block]:
    """Return how many files were read, skipped and failed on, then which, folded."""
    lists = {
        key: list(value)
        for key, value in note.facts.items()
        if isinstance(value, list | tuple) and key not in ("paths", "findings")
    }
    rows = [
        row("paths", ", ".join(map(str, note.facts.get("paths") or ())) or DASH, record=note.id)
    ]
    rows += [
        row(key, Given(str(len(value)), note.id), record=note.id) for key, value in lists.items()
    ]
    rows += [
        row(key, Given(str(value), note.id), record=note.id)
        for key, value in note.facts.items()
        if isinstance(value, int | str)
    ]
    link = (RecordLink(note.id),)
    columns = ("What", "How many")
    table = Table(caption="What was scanned", columns=columns, rows=tuple(rows), note=link)
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


def _table(findings: list[Finding]) -> Table:
    columns = ("Rule", "Severity", "Confidence", "Place", "What it says, and what to do")
    return Table(
        caption="Findings, the gravest first",
        columns=columns,
        rows=tuple(_row(finding) for finding in findings),
        folded=len(findings) > 25,
    )


def _row(finding: Finding) -> Row:
    rule: list[Inline] = [Mono(finding.rule), RecordLink(finding.id)]
    if finding.cwe:
        rule.insert(1, Mono(finding.cwe))
    line = finding.place.get("line")
    path = str(finding.place.get("path", DASH))
    return row(
        tuple(rule),
        severity_badge(finding.severity),
        finding.confidence,
        Mono(path if line is None else f"{path}:{line}"),
        (finding.message, f" ({finding.tool})", f"\n{finding.fix}" if finding.fix else ""),
        record=finding.id,
    )
