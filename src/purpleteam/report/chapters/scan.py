"""Scan: findings in code and files, what was scanned, and what was not."""

from collections import Counter
from collections.abc import Iterator, Mapping

from purpleteam.core.records import Finding
from purpleteam.core.schema import SCAN
from purpleteam.report.blocks import badge, checks
from purpleteam.report.chapter import CHAPTERS, Chapter
from purpleteam.report.collect import Evidence
from purpleteam.report.view import DASH, Block, Given, Mono, Prose, RecordLink, Table, row

SEVERITIES = ("critical", "high", "medium", "low", "note")
MANY = 25
"""A table of more findings is folded."""
MOST = 300
"""Findings that are told one by one; of a large tree there are thousands."""


def gravest_first(evidence: Evidence) -> list[Finding]:
    """Return the findings in order of severity."""
    place = {severity: number for number, severity in enumerate(SEVERITIES)}
    return sorted(evidence.of(Finding), key=lambda finding: place.get(finding.severity, 9))


def _findings(evidence: Evidence) -> Iterator[Block]:
    """Yield the findings; how many files were read, skipped and failed on; which, folded."""
    rows, findings = [], gravest_first(evidence)
    for finding in findings[:MOST]:
        cwe = (Mono(finding.cwe),) if finding.cwe else ()
        line, path = finding.place.get("line"), str(finding.place.get("path", DASH))
        cell = f"cell {finding.place['cell']}:" if "cell" in finding.place else ""
        place = Mono(path if line is None else f"{path}:{cell}{line}")
        name = (Mono(finding.rule), *cwe, RecordLink(finding.id))
        said = (finding.message, f" ({finding.tool})", f"\n{finding.fix}" if finding.fix else "")
        severity, sure = badge(finding.severity), finding.confidence
        rows.append(row(name, severity, sure, place, said, record=finding.id))
    if not rows and evidence.notes(SCAN):
        yield Prose(("The scanners that ran reported nothing in the files below.",))
    columns = ("Rule", "Severity", "Confidence", "Place", "What it says, and what to do")
    caption = "Findings, the gravest first"
    yield Table(caption, columns, rows, folded=len(rows) > MANY, stacked=True)
    beyond = Counter((finding.rule, finding.severity) for finding in findings[MOST:])
    last = {(finding.rule, finding.severity): finding.id for finding in findings[MOST:]}
    rows = [
        row(Mono(rule), badge(severity), Given(str(count), last[rule, severity]))
        for (rule, severity), count in beyond.items()
    ]
    where = ("None is graver than those above. Each is a line of records.jsonl, and in the SARIF.",)
    yield Table("Findings not listed above", ("Rule", "Severity", "How many"), rows, note=where)
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
        yield Table("What was scanned", ("What", "How many"), rows, note=(RecordLink(id),))
        for key, value in lists.items():
            files = [file if isinstance(file, Mapping) else {"path": file} for file in value]
            told = [[str(file.get(name, DASH)) for name in ("path", "reason")] for file in files]
            rows = [row(Mono(path), reason, record=id) for path, reason in told]
            yield Table(f"Files {key}", ("File", "Reason"), rows, folded=True, dense=True)


CHAPTER = Chapter(
    title="Scan",
    lead="What static analysis sees in the code, the model files and the dependencies.",
    parts=(_findings, checks("Checks of the code and of packages", "scan", "code", "packages")),
    means="A finding is a place that a rule matched, with how grave it would be and how sure the "
    "rule is. Files that were skipped or could not be read are counted as such, never as clean.",
    means_not="No findings means that these rules matched nothing in these files. It does not mean "
    "that the code is safe, and it says nothing about a file that was not scanned.",
    notes=(SCAN,),
    kinds=(Finding,),
    checks=("scan", "code", "packages"),
    stage="scan",
    gap="Code and model files: no scanner ran",
    try_="purple scan .",
    after="backdoors",
)
CHAPTERS.register("scan")(CHAPTER)
