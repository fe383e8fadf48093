"""Scan: findings in code and files, what was scanned, and what was not."""

from collections.abc import Mapping

from purpleteam.core.records import Finding
from purpleteam.core.schema import SCAN
from purpleteam.report.blocks import badge, checks
from purpleteam.report.chapter import CHAPTERS, Chapter
from purpleteam.report.collect import Evidence
from purpleteam.report.view import DASH, Blocks, Cell, Given, Mono, Prose, RecordLink, Table, row

SEVERITIES = ("critical", "high", "medium", "low", "note")
MANY = 25
"""A table of more findings is folded."""


def gravest_first(evidence: Evidence) -> list[Finding]:
    """Return the findings in order of severity."""
    place = {severity: number for number, severity in enumerate(SEVERITIES)}
    return sorted(evidence.of(Finding), key=lambda finding: place.get(finding.severity, 9))


def _findings(evidence: Evidence) -> Blocks:
    rows = []
    for finding in gravest_first(evidence):
        cwe = (Mono(finding.cwe),) if finding.cwe else ()
        line, path = finding.place.get("line"), str(finding.place.get("path", DASH))
        said = (finding.message, f" ({finding.tool})", f"\n{finding.fix}" if finding.fix else "")
        cells: tuple[Cell, ...] = (
            (Mono(finding.rule), *cwe, RecordLink(finding.id)),
            (badge(finding.severity),),
            (finding.confidence,),
            (Mono(path if line is None else f"{path}:{line}"),),
            said,
        )
        rows.append(row(*cells, record=finding.id))
    if not rows and evidence.notes(SCAN):
        return Prose(("The scanners that ran reported nothing in the files below.",))
    columns = ("Rule", "Severity", "Confidence", "Place", "What it says, and what to do")
    caption = "Findings, the gravest first"
    return Table(caption, columns, rows, folded=len(rows) > MANY, stacked=True)


def _scanned(evidence: Evidence) -> Blocks:
    """Return how many files were read, skipped and failed on, then which, folded."""
    tables = []
    for note in evidence.notes(SCAN):
        facts, id = note.facts, note.id
        lists = {
            key: list(value)
            for key, value in facts.items()
            if isinstance(value, list | tuple) and key not in ("paths", "findings")
        }
        numbers = {key: str(len(value)) for key, value in lists.items()}
        numbers |= {key: str(value) for key, value in facts.items() if isinstance(value, int | str)}
        paths = ", ".join(map(str, facts.get("paths") or ())) or DASH
        rows = [row("paths", paths, record=id)]
        rows += [row(key, Given(text, id), record=id) for key, text in numbers.items()]
        columns = ("What", "How many")
        tables.append(Table("What was scanned", columns, rows, note=(RecordLink(id),)))
        for key, value in lists.items():
            files = [file if isinstance(file, Mapping) else {"path": file} for file in value]
            rows = [
                row(Mono(str(file.get("path", DASH))), str(file.get("reason", DASH)), record=id)
                for file in files
            ]
            columns = ("File", "Reason")
            tables.append(Table(f"Files {key}", columns, rows, folded=True, dense=True))
    return tables


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
