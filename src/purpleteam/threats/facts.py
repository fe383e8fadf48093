"""The system as plain JSON, for a `Note` of the run, from which the report draws its chapter.

Every list is a table: its entries are flat, their keys are its columns, their values are text, a
number or a list of text. Records are written with sorted keys, so `columns` holds the order in
which a table's columns are meant to be read. Whoever wants structure calls the functions that
return rows.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from purpleteam.core.records import ThreatStatus
from purpleteam.threats.diagram import draw
from purpleteam.threats.model import STRIDE, Letter, SystemModel
from purpleteam.threats.status import MatrixCell, matrix, missing, summary

Row = dict[str, Any]


def to_facts(system: SystemModel, statuses: Sequence[ThreatStatus] = ()) -> dict[str, Any]:
    """Return all that a report shows of a system; without statuses nothing derived is in it."""
    zones = {zone.id: zone.name for zone in system.zones}
    facts: dict[str, Any] = {
        "name": system.name,
        "description": system.description,
        "stride": STRIDE,
        "zones": [dataclasses.asdict(zone) for zone in system.zones],
        "elements": [_told(element) for element in system.elements],
        "flows": [
            {"number": number}
            | _told(flow)
            | {"crosses": " to ".join(zones[zone] for zone in system.crosses(flow) or ())}
            for number, flow in enumerate(system.flows, 1)
        ],
        "threats": [
            {
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
            }
            for threat in system.threats
        ],
        "mitigations": [
            {
                "id": one.id,
                "statement": one.statement,
                "lowers": [key for key, steps in vars(one.effect).items() if steps],
                "why": one.why,
                "all_of": one.checks.all,
                "any_of": one.checks.any,
                "about": one.about,
            }
            for one in system.mitigations
        ],
        "accepted": [
            dataclasses.asdict(one) | {"until": one.until.isoformat()} for one in system.accepted
        ],
        "cells": [
            {"part": row.name, "kind": row.kind}
            | {column(cell.stride): _cell(cell) for cell in row.cells}
            for row in matrix(system, statuses)
        ],
        "catalogue": dict(system.catalogue),
        "missing": dataclasses.asdict(missing(system)),
        "summary": dataclasses.asdict(summary(statuses)),
        "diagram": draw(system),
    }
    facts["columns"] = columns(facts)
    plain: dict[str, Any] = json.loads(json.dumps(facts))
    return plain


def column(letter: Letter) -> str:
    """Return what a table calls the column of a letter."""
    return STRIDE[letter].lower().replace(" ", "_")


def columns(tables: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the order of the columns of each list of rows."""
    return {
        name: list(rows[0])
        for name, rows in tables.items()
        if isinstance(rows, list) and rows and isinstance(rows[0], dict)
    }


def _told(part: Any) -> Row:
    values = dataclasses.asdict(part)
    return {key: value for key, value in values.items() if key not in ("at", "when")}


def _cell(cell: MatrixCell) -> str:
    if cell.reason:
        return "not applicable"
    if not cell.threats:
        return "missing" if cell.required else ""
    return ", ".join(cell.threats) + (f": {cell.status}" if cell.status else "")
