"""Two course reports in their own layouts, with what they said beside what is derived here.

Report A marks a table of elements and STRIDE letters; report B gives a level, threats and
mitigations for each letter, and rates likelihood and impact in an appendix. `origins.yaml` holds
each statement, and which parts, threats, mitigations and reasons of the system answer it; nothing
else in this room knows of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any, Literal

from purpleteam.core.config import build
from purpleteam.core.records import Severity, ThreatStatus
from purpleteam.threats.facts import Row, column, columns
from purpleteam.threats.model import LETTERS, STRIDE, Letter, Rating, SystemModel, level, worst
from purpleteam.threats.status import worst_status

MARKS = {"threat": "a threat", "denied": "no threat", "blank": "left empty"}


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One statement of a report, in our words."""

    id: str
    report: Literal["A", "B"]
    kind: Literal["part", "interaction", "threat", "denied", "blank", "mitigation", "finding"]
    """`denied`: the report says there is no such threat; `blank`: it says nothing there."""
    says: str
    element: str = ""
    """The part as that report calls it."""
    stride: Letter | None = None
    level: str = ""
    """The level that the report states."""
    answer: str = ""
    """The mitigation that the report claims."""
    note: str = ""
    """What we make of it, where the two do not agree."""


@dataclass(frozen=True, kw_only=True)
class StatedLevel:
    """The three places where report B rates a STRIDE category."""

    stride: Letter
    table: str
    analysis: str
    likelihood: Rating
    impact: Rating
    appendix: str


@dataclass(frozen=True, kw_only=True)
class Reports:
    """Both reports, and by an id of the system the statements that it answers."""

    items: tuple[Statement, ...]
    levels: tuple[StatedLevel, ...]
    origins: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Line:
    """One statement of a report beside ours."""

    said: Statement
    ours: tuple[str, ...]
    """Our threats, mitigations, parts or reasons that answer it."""
    inherent: Severity | None
    residual: Severity | None
    status: str
    """The worst state of those threats; of a mitigation, whether it is verified."""


@cache
def reports() -> Reports:
    """Return both reports."""
    import yaml

    packaged = resources.files("purpleteam.assignment") / "origins.yaml"
    values = yaml.safe_load(packaged.read_text(encoding="utf-8"))
    for key, kind in (("items", Statement), ("levels", StatedLevel)):
        values[key] = [build(kind, fields, f"origins.yaml: {key}") for fields in values[key]]
    return build(Reports, values, "origins.yaml")


def with_origins(statuses: Iterable[ThreatStatus]) -> list[ThreatStatus]:
    """Return the statuses, each with the statements that its threat or its reason answers."""
    by_id = dict(reports().origins)
    for name in [name for name in by_id if "/" in name]:  # such as dataset/I
        element, _, letters = name.partition("/")
        for letter in letters:
            by_id[f"N-{element.removeprefix('f-').upper()}-{letter}"] = by_id[name]
    return [replace(status, origin=tuple(by_id.get(status.threat, ()))) for status in statuses]


def lines(
    system: SystemModel, report: str, statuses: Sequence[ThreatStatus] = ()
) -> tuple[Line, ...]:
    """Return every statement of report `A` or `B` beside ours, in the order of the file."""
    there = {*system.names, *system.mitigation, *(threat.id for threat in system.threats)}
    there |= {f"{cell.element}/{''.join(cell.stride)}" for cell in system.not_applicable}
    origins = [(name, said) for name, said in reports().origins.items() if name in there]
    traced = with_origins(statuses)

    def beside(said: Statement) -> Line:
        ours = tuple(name for name, answered in origins if said.id in answered)
        here = [status for status in traced if said.id in status.origin]
        states = {
            status.mitigations[name]["status"]
            for status in traced
            for name in ours
            if name in status.mitigations
        }
        proved = next((one for one in ("failed", "unverified", "verified") if one in states), "")
        return Line(
            said,
            ours,
            worst(threat.inherent.level for threat in system.threats if threat.id in ours),
            worst(status.residual for status in here if status.status != "not_applicable"),
            worst_status(here) or proved,
        )

    return tuple(beside(said) for said in reports().items if said.report == report)


def tables_of(system: SystemModel, statuses: Sequence[ThreatStatus] = ()) -> dict[str, Any]:
    """Return both reports' tables as facts of a record, each statement with ours beside."""
    by_a, by_b = (lines(system, report, statuses) for report in "AB")
    cells = {(line.said.element, line.said.stride): _cell(line) for line in by_a}
    elements = dict.fromkeys(element for element, letter in cells if element and letter)
    categories, risks = [], []
    for said in reports().levels:
        here = [line for line in by_b if line.said.stride == said.stride]
        threats = [line for line in here if line.said.kind == "threat"]
        names = {name for line in threats for name in line.ours}
        states = Counter(status.status for status in statuses if status.threat in names)
        told: dict[str, list[str]] = {"threat": [], "mitigation": []}
        for line in here:
            if line.said.kind in told:
                status = line.status or "not derived"
                told[line.said.kind].append(f"{line.said.says} ({status})")
        ours = {
            "our_level": worst(line.inherent for line in threats if line.inherent),
            "remains": worst(line.residual for line in threats if line.residual),
        }
        categories.append(
            {
                "category": STRIDE[said.stride],
                "table_says": said.table,
                "analysis_says": said.analysis,
                "threats": told["threat"],
                "mitigations": told["mitigation"],
                **ours,
                "our_threats": ", ".join(f"{many} {name}" for name, many in states.items()),
            }
        )
        computed = level(said.likelihood, said.impact)
        risks.append(
            {
                "category": STRIDE[said.stride],
                "likelihood": said.likelihood,
                "impact": said.impact,
                "said_level": said.appendix,
                "computed_level": computed,
                "agrees": "yes" if said.appendix.lower() == computed else "no",
                **ours,
            }
        )
    tables: dict[str, list[Row]] = {
        "A, elements and letters": [
            {"element": element} | {column(letter): cells[element, letter] for letter in LETTERS}
            for element in elements
        ],
        "A, every statement": [_statement(line) for line in by_a],
        "B, categories": categories,
        "B, appendix": risks,
        "B, every statement": [_statement(line) for line in by_b],
    }
    return {"tables": tables, "columns": columns(tables)}


def _cell(line: Line) -> str:
    """Return what a report says of a cell and, after it, what stands here."""
    threats = ", ".join(name for name in line.ours if name.startswith("T-"))
    ours = line.status.replace("_", " ")
    if threats:
        derived = f", remains {line.residual}, {line.status}" if line.residual else ""
        ours = f"{threats} ({line.inherent}{derived})"
    return f"says: {MARKS.get(line.said.kind, line.said.kind)}; ours: {ours or 'nothing'}"


def _statement(line: Line) -> Row:
    said = line.said
    return {
        "id": said.id,
        "kind": said.kind,
        "category": STRIDE[said.stride] if said.stride else "",
        "says": said.says,
        "claims": [text for text in (said.level and f"level {said.level}", said.answer) if text],
        "ours": list(line.ours),
        "our_level": line.inherent,
        "remains": line.residual,
        "status": line.status.replace("_", " "),
        "note": said.note,
    }
