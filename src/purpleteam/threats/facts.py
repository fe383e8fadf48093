"""The system as plain JSON, for a `Note` of the run, from which the report draws its chapter.

Every list is a table: its entries are flat, their keys are its columns, their values are text, a
number or a list of text. Records are written with sorted keys, so `columns` holds the order in
which a table's columns are meant to be read. Whoever wants structure calls the functions that
return rows.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from purpleteam.core.records import ThreatStatus
from purpleteam.threats.diagram import draw
from purpleteam.threats.model import Flow, Mitigation, SystemModel, Threat
from purpleteam.threats.seeds import (
    CategoryRow,
    RiskRow,
    SeedLine,
    seed_a_matrix,
    seed_b_appendix,
    seed_b_categories,
    seed_lines,
)
from purpleteam.threats.stride import STRIDE, Letter
from purpleteam.threats.tables import MatrixCell, matrix, missing, summary

__all__ = ["seed_tables", "to_facts"]

Row = dict[str, Any]

MARKS = {"threat": "a threat", "denied": "no threat", "blank": "left empty"}


def to_facts(system: SystemModel, statuses: Sequence[ThreatStatus] = ()) -> dict[str, Any]:
    """Return all that a report shows of a system; without statuses nothing derived is in it."""
    facts: dict[str, Any] = {
        "name": system.name,
        "description": system.description,
        "stride": STRIDE,
        "zones": [dataclasses.asdict(one) for one in system.zones],
        "elements": [_without(dataclasses.asdict(one), "at") for one in system.elements],
        "flows": [_flow(system, number, one) for number, one in enumerate(system.flows, 1)],
        "threats": [_threat(one) for one in system.threats],
        "mitigations": [_mitigation(one) for one in system.mitigations],
        "accepted": [
            dataclasses.asdict(one) | {"until": one.until.isoformat()} for one in system.accepted
        ],
        "cells": _cells(system, statuses),
        "seed_tables": seed_tables(system, statuses),
        "catalogue": dict(system.catalogue),
        "missing": dataclasses.asdict(missing(system)),
        "summary": dataclasses.asdict(summary(statuses)),
        "diagram": draw(system),
    }
    facts["columns"] = _columns(facts) | _columns(facts["seed_tables"])
    plain: dict[str, Any] = json.loads(json.dumps(facts))
    return plain


def seed_tables(system: SystemModel, statuses: Sequence[ThreatStatus] = ()) -> dict[str, list[Row]]:
    """Return the earlier reports' tables as flat rows, each statement with ours beside it."""
    if not system.seed_items:
        return {}
    return {
        "A, elements and letters": [
            {"element": row.element}
            | {_column(cell.stride): _beside(cell) for cell in row.cells if cell.stride}
            for row in seed_a_matrix(system, statuses)
        ],
        "A, every statement": [_statement(one) for one in seed_lines(system, "A", statuses)],
        "B, categories": [_category(one) for one in seed_b_categories(system, statuses)],
        "B, appendix": [_risk(one) for one in seed_b_appendix(system, statuses)],
        "B, every statement": [_statement(one) for one in seed_lines(system, "B", statuses)],
    }


def _flow(system: SystemModel, number: int, flow: Flow) -> Row:
    zones = {one.id: one.name for one in system.zones}
    ends = system.crosses(flow)
    crosses = " to ".join(zones[one] for one in ends) if ends else ""
    return {"number": number} | dataclasses.asdict(flow) | {"crosses": crosses}


def _threat(threat: Threat) -> Row:
    return {
        "id": threat.id,
        "part": threat.element,
        "title": threat.title,
        "description": threat.description,
        "likelihood": threat.inherent.likelihood,
        "impact": threat.inherent.impact,
        "level": threat.inherent.level,
        "why": threat.inherent.why,
        "mitigations": threat.mitigations,
        "references": [ref for refs in threat.refs.values() for ref in refs],
        "origin": threat.origin,
    }


def _mitigation(one: Mitigation) -> Row:
    lowered = [name for name in ("likelihood", "impact") if getattr(one.effect, name)]
    return {
        "id": one.id,
        "statement": one.statement,
        "lowers": lowered,
        "why": one.why,
        "all_of": one.checks.all,
        "any_of": one.checks.any,
        "origin": one.origin,
    }


def _cells(system: SystemModel, statuses: Sequence[ThreatStatus]) -> list[Row]:
    return [
        {"part": row.name, "kind": row.kind}
        | {_column(cell.stride): _cell(cell) for cell in row.cells}
        for row in matrix(system, statuses)
    ]


def _cell(cell: MatrixCell) -> str:
    if cell.reason:
        return "not applicable"
    if not cell.threats:
        return "missing" if cell.required else ""
    return ", ".join(cell.threats) + (f": {cell.status}" if cell.status else "")


def _beside(line: SeedLine) -> str:
    """Return what a report says of a cell and, after it, what stands here."""
    mark = MARKS.get(line.kind, line.kind)
    return f"says: {mark}; ours: {_ours(line) or 'nothing'}"


def _ours(line: SeedLine) -> str:
    threats = ", ".join(name for name in line.ours if name.startswith("T-"))
    if not threats:
        return line.status.replace("_", " ")
    derived = f", remains {line.residual}, {line.status}" if line.residual else ""
    return f"{threats} ({line.inherent}{derived})"


def _statement(line: SeedLine) -> Row:
    claims = [f"level {line.said_level}"] if line.said_level else []
    return {
        "id": line.id,
        "kind": line.kind,
        "category": STRIDE[line.stride] if line.stride else "",
        "says": line.says,
        "claims": [*claims, line.answer] if line.answer else claims,
        "ours": line.ours,
        "our_level": line.inherent,
        "remains": line.residual,
        "status": line.status.replace("_", " "),
        "note": line.note,
    }


def _risk(one: RiskRow) -> Row:
    return {
        "category": one.name,
        "likelihood": one.likelihood,
        "impact": one.impact,
        "said_level": one.said,
        "computed_level": one.computed,
        "agrees": "yes" if one.agrees else "no",
        "our_level": one.inherent,
        "remains": one.residual,
    }


def _category(one: CategoryRow) -> Row:
    return {
        "category": one.name,
        "table_says": one.table,
        "analysis_says": one.analysis,
        "threats": [f"{line.says} ({line.status or 'not derived'})" for line in one.threats],
        "mitigations": [
            f"{line.says} ({line.status or 'not derived'})" for line in one.mitigations
        ],
        "our_level": one.inherent,
        "remains": one.residual,
        "our_threats": ", ".join(f"{many} {name}" for name, many in one.states.items()),
    }


def _column(letter: Letter) -> str:
    return STRIDE[letter].lower().replace(" ", "_")


def _columns(tables: Row) -> dict[str, list[str]]:
    return {
        name: list(rows[0])
        for name, rows in tables.items()
        if isinstance(rows, list) and rows and isinstance(rows[0], dict)
    }


def _without(values: Row, key: str) -> Row:
    return {name: value for name, value in values.items() if name != key}
