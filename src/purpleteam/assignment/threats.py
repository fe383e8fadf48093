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


@dataclass(frozen=True, kw_only=True)
class Line:
    """One statement of a report beside ours."""

    said: Statement
    ours: tuple[str, ...]
    """Our threats, mitigations, parts or reasons that answer it."""
    inherent: Severity | None
    residual: Severity | None
    status: str
    """The worst state of those threats; of a mitigation, whether it is verified."""


@dataclass(frozen=True, kw_only=True)
class CategoryRow:
    """One letter of report B: its ratings, threats and mitigations, beside ours."""

    said: StatedLevel
    threats: tuple[Line, ...]
    mitigations: tuple[Line, ...]
    inherent: Severity | None
    residual: Severity | None
    states: dict[str, int]
    """How many of our threats for it are in which state."""
    computed: Severity
    """The level that the appendix's own two ratings give."""
    agrees: bool
    """Whether the appendix states that level."""


@cache
def reports() -> Reports:
    """Return both reports."""
    import yaml

    packaged = resources.files("purpleteam.assignment") / "origins.yaml"
    values = yaml.safe_load(packaged.read_text(encoding="utf-8"))
    values["items"] = [build(Statement, one, "origins.yaml: items") for one in values["items"]]
    values["levels"] = [build(StatedLevel, one, "origins.yaml: levels") for one in values["levels"]]
    return build(Reports, values, "origins.yaml")


def untraced() -> tuple[str, ...]:
    """Return the statements of both reports that nothing here answers."""
    traced = {statement for origins in reports().origins.values() for statement in origins}
    return tuple(one.id for one in reports().items if one.id not in traced)


def with_origins(statuses: Iterable[ThreatStatus]) -> list[ThreatStatus]:
    """Return the statuses, each with the statements that its threat or its reason answers."""
    by_id = dict(reports().origins)
    for name in [name for name in by_id if "/" in name]:  # such as dataset/I
        element, _, letters = name.partition("/")
        for letter in letters:
            by_id[f"N-{element.removeprefix('f-').upper()}-{letter}"] = by_id[name]
    return [replace(one, origin=tuple(by_id.get(one.threat, ()))) for one in statuses]


def tables_of(system: SystemModel, statuses: Sequence[ThreatStatus] = ()) -> dict[str, Any]:
    """Return both reports' tables as facts of a record, each statement with ours beside."""
    rows = report_b_categories(system, statuses)
    tables: dict[str, list[Row]] = {
        "A, elements and letters": [
            {"element": element}
            | {column(line.said.stride): _beside(line) for line in cells if line.said.stride}
            for element, cells in report_a_matrix(system, statuses).items()
        ],
        "A, every statement": [_statement(line) for line in lines(system, "A", statuses)],
        "B, categories": [_category(row) for row in rows],
        "B, appendix": [_risk(row) for row in rows],
        "B, every statement": [_statement(line) for line in lines(system, "B", statuses)],
    }
    return {"tables": tables, "columns": columns(tables)}


def lines(
    system: SystemModel, report: str, statuses: Sequence[ThreatStatus] = ()
) -> tuple[Line, ...]:
    """Return every statement of report `A` or `B` beside ours, in the order of the file."""
    traced = with_origins(statuses)
    return tuple(_line(system, one, traced) for one in reports().items if one.report == report)


def report_a_matrix(
    system: SystemModel, statuses: Sequence[ThreatStatus] = ()
) -> dict[str, tuple[Line, ...]]:
    """Return report A's table: by element the statements on the six letters."""
    cells = [one for one in lines(system, "A", statuses) if one.said.element and one.said.stride]
    return {
        element: tuple(
            line
            for letter in LETTERS
            for line in cells
            if (line.said.element, line.said.stride) == (element, letter)
        )
        for element in dict.fromkeys(line.said.element for line in cells)
    }


def report_b_categories(
    system: SystemModel, statuses: Sequence[ThreatStatus] = ()
) -> tuple[CategoryRow, ...]:
    """Return report B's table and appendix: a row for each letter."""
    every = lines(system, "B", statuses)
    rows = []
    for said in reports().levels:
        here = [line for line in every if line.said.stride == said.stride]
        threats = tuple(line for line in here if line.said.kind == "threat")
        names = {name for line in threats for name in line.ours}
        computed = level(said.likelihood, said.impact)
        rows.append(
            CategoryRow(
                said=said,
                threats=threats,
                mitigations=tuple(line for line in here if line.said.kind == "mitigation"),
                inherent=worst(line.inherent for line in threats if line.inherent),
                residual=worst(line.residual for line in threats if line.residual),
                states=dict(Counter(one.status for one in statuses if one.threat in names)),
                computed=computed,
                agrees=said.appendix.lower() == computed,
            )
        )
    return tuple(rows)


def _line(system: SystemModel, said: Statement, statuses: Iterable[ThreatStatus]) -> Line:
    there = {*system.names, *system.mitigation, *(threat.id for threat in system.threats)}
    there |= {f"{one.element}/{''.join(one.stride)}" for one in system.not_applicable}
    origins = reports().origins.items()
    ours = tuple(name for name, named in origins if said.id in named and name in there)
    here = [one for one in statuses if said.id in one.origin]
    states = {
        facts["status"]
        for one in statuses
        for name, facts in one.mitigations.items()
        if name in ours
    }
    proved = next((state for state in ("failed", "unverified", "verified") if state in states), "")
    return Line(
        said=said,
        ours=ours,
        inherent=worst(threat.inherent.level for threat in system.threats if threat.id in ours),
        residual=worst(one.residual for one in here if one.status != "not_applicable"),
        status=worst_status(here) or proved,
    )


def _beside(line: Line) -> str:
    """Return what a report says of a cell and, after it, what stands here."""
    threats = ", ".join(name for name in line.ours if name.startswith("T-"))
    ours = line.status.replace("_", " ")
    if threats:
        derived = f", remains {line.residual}, {line.status}" if line.residual else ""
        ours = f"{threats} ({line.inherent}{derived})"
    return f"says: {MARKS.get(line.said.kind, line.said.kind)}; ours: {ours or 'nothing'}"


def _statement(line: Line) -> Row:
    said = line.said
    claims = [f"level {said.level}"] if said.level else []
    return {
        "id": said.id,
        "kind": said.kind,
        "category": STRIDE[said.stride] if said.stride else "",
        "says": said.says,
        "claims": [*claims, said.answer] if said.answer else claims,
        "ours": list(line.ours),
        "our_level": line.inherent,
        "remains": line.residual,
        "status": line.status.replace("_", " "),
        "note": said.note,
    }


def _risk(row: CategoryRow) -> Row:
    return {
        "category": STRIDE[row.said.stride],
        "likelihood": row.said.likelihood,
        "impact": row.said.impact,
        "said_level": row.said.appendix,
        "computed_level": row.computed,
        "agrees": "yes" if row.agrees else "no",
        "our_level": row.inherent,
        "remains": row.residual,
    }


def _category(row: CategoryRow) -> Row:
    def listed(some: Iterable[Line]) -> list[str]:
        return [f"{line.said.says} ({line.status or 'not derived'})" for line in some]

    return {
        "category": STRIDE[row.said.stride],
        "table_says": row.said.table,
        "analysis_says": row.said.analysis,
        "threats": listed(row.threats),
        "mitigations": listed(row.mitigations),
        "our_level": row.inherent,
        "remains": row.residual,
        "our_threats": ", ".join(f"{many} {name}" for name, many in row.states.items()),
    }
