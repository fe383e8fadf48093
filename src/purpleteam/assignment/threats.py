"""Two course reports in their own layouts, with what they said beside what is derived here.

Report A marks a table of elements and STRIDE letters; report B gives a level, threats and
mitigations for each letter, and rates likelihood and impact in an appendix. `origins.yaml` holds
each statement, and which parts, threats, mitigations and reasons of the system answer it; nothing
else in this room knows of them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any, Literal

from purpleteam.core.config import build
from purpleteam.core.records import ThreatStatus
from purpleteam.core.schema import STRIDE, Letter
from purpleteam.threats.model import LETTERS, Rating, SystemModel, level, worst
from purpleteam.threats.status import Row, column, columns, worst_status

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


@cache
def reports() -> Reports:
    """Return both reports."""
    import yaml

    packaged = resources.files("purpleteam.assignment") / "origins.yaml"
    return build(Reports, yaml.safe_load(packaged.read_text(encoding="utf-8")), "origins.yaml")


def with_origins(statuses: Iterable[ThreatStatus]) -> list[ThreatStatus]:
    """Return the statuses, each with the statements that its threat or its reason answers."""
    by_id = dict(reports().origins)
    for name, said in reports().origins.items():
        element, _, letters = name.partition("/")  # such as dataset/I
        for letter in letters:
            by_id[f"N-{element.removeprefix('f-').upper()}-{letter}"] = said
    return [replace(status, origin=tuple(by_id.get(status.threat, ()))) for status in statuses]


def beside(
    system: SystemModel, report: str, statuses: Sequence[ThreatStatus] = ()
) -> dict[Statement, Row]:
    """Return every statement of report `A` or `B`, in the order of the file, with its answers.

    `ours` are the threats, mitigations, parts or reasons of the system that answer it; the status
    is the worst state of those threats, or, of a mitigation, whether it is verified.
    """
    there = {*system.names, *system.mitigation, *(threat.id for threat in system.threats)}
    there |= {f"{cell.element}/{''.join(cell.stride)}" for cell in system.not_applicable}
    origins = [(name, answered) for name, answered in reports().origins.items() if name in there]
    traced, rows = with_origins(statuses), {}
    proofs = (pair for status in traced for pair in status.mitigations.items())
    evidence = {name: facts["status"] for name, facts in proofs}
    for said in reports().items:
        if said.report != report:
            continue
        answers = [name for name, answered in origins if said.id in answered]
        here = [status for status in traced if said.id in status.origin]
        states = {evidence[name] for name in answers if name in evidence}
        proved = [state for state in ("failed", "unverified", "verified") if state in states]
        claims = (said.level and f"level {said.level}", said.answer)
        levels = (threat.inherent.level for threat in system.threats if threat.id in answers)
        remains = (status.residual for status in here if status.status != "not_applicable")
        rows[said] = {
            "id": said.id,
            "kind": said.kind,
            "category": STRIDE[said.stride] if said.stride else "",
            "says": said.says,
            "claims": [text for text in claims if text],
            "ours": answers,
            "our_level": worst(levels),
            "remains": worst(remains),
            "status": (worst_status(here) or "".join(proved[:1])).replace("_", " "),
            "note": said.note,
        }
    return rows


def tables_of(system: SystemModel, statuses: Sequence[ThreatStatus] = ()) -> dict[str, Any]:
    """Return both reports' tables as facts of a record, each statement beside its answers."""
    by_a, by_b = (beside(system, report, statuses) for report in "AB")
    cells = {(said.element, said.stride): _cell(said, row) for said, row in by_a.items()}
    elements = dict.fromkeys(element for element, letter in cells if element and letter)
    categories, risks = [], []
    for rated in reports().levels:
        here = [row for said, row in by_b.items() if said.stride == rated.stride]
        threats, mitigations = (
            [row for row in here if row["kind"] == kind] for kind in ("threat", "mitigation")
        )
        names = {name for row in threats for name in row["ours"]}
        states = Counter(status.status for status in statuses if status.threat in names)
        category = {"category": STRIDE[rated.stride]}
        rated_here = ("our_level", "remains")
        levels = {key: worst(row[key] for row in threats if row[key]) for key in rated_here}
        stated = {
            "table_says": rated.table,
            "analysis_says": rated.analysis,
            "threats": list(map(_derived, threats)),
            "mitigations": list(map(_derived, mitigations)),
        }
        counted = ", ".join(f"{many} {name}" for name, many in states.items())
        categories.append(category | stated | levels | {"our_threats": counted})
        computed = level(rated.likelihood, rated.impact)
        risk = {
            "likelihood": rated.likelihood,
            "impact": rated.impact,
            "said_level": rated.appendix,
            "computed_level": computed,
            "agrees": "yes" if rated.appendix.lower() == computed else "no",
        }
        risks.append(category | risk | levels)
    tables: dict[str, list[Row]] = {
        "A, elements and letters": [
            {"element": element} | {column(letter): cells[element, letter] for letter in LETTERS}
            for element in elements
        ],
        "A, every statement": [*by_a.values()],
        "B, categories": categories,
        "B, appendix": risks,
        "B, every statement": [*by_b.values()],
    }
    return {"tables": tables, "columns": columns(tables)}


def _derived(row: Row) -> str:
    return f"{row['says']} ({row['status'] or 'not derived'})"


def _cell(said: Statement, row: Row) -> str:
    """Return what a report says of a cell and, after it, what stands here."""
    threats = ", ".join(name for name in row["ours"] if name.startswith("T-"))
    here = row["status"] or "nothing"
    if threats:
        state = row["status"].replace(" ", "_")
        derived = f", remains {row['remains']}, {state}" if row["remains"] else ""
        here = f"{threats} ({row['our_level']}{derived})"
    return f"says: {MARKS.get(said.kind, said.kind)}; ours: {here}"
