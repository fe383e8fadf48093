"""The system as plain JSON, for a `Note` of the run, from which the report draws its chapter.

Every list is a table of flat entries. Records are written with sorted keys, so `columns` holds
the order in which a table's columns are meant to be read.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from purpleteam.core.records import ThreatStatus
from purpleteam.threats.diagram import draw
from purpleteam.threats.model import STRIDE, Element, Flow, Letter, SystemModel
from purpleteam.threats.status import matrix, missing, summary

Row = dict[str, Any]


def to_facts(system: SystemModel, statuses: Sequence[ThreatStatus] = ()) -> dict[str, Any]:
    """Return all that a report shows of a system; without statuses nothing derived is in it."""
    zones = {zone.id: zone.name for zone in system.zones}
    flows = []
    for number, flow in enumerate(system.flows, 1):
        crosses = " to ".join(zones[zone] for zone in system.crosses(flow) or ())
        flows.append({"number": number} | _told(flow) | {"crosses": crosses})
    cells: dict[str, Row] = {
        part: {"part": system.names[part], "kind": kind} for part, kind in system.kinds.items()
    }
    for (part, letter), text in matrix(system, statuses).items():
        cells[part][column(letter)] = text
    facts: dict[str, Any] = {
        "name": system.name,
        "description": system.description,
        "stride": STRIDE,
        "zones": [asdict(zone) for zone in system.zones],
        "elements": [_told(element) for element in system.elements],
        "flows": flows,
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
        "accepted": [asdict(one) | {"until": one.until.isoformat()} for one in system.accepted],
        "cells": list(cells.values()),
        "catalogue": dict(system.catalogue),
        "missing": missing(system),
        "summary": summary(statuses),
        "diagram": draw(system),
    }
    plain: dict[str, Any] = json.loads(json.dumps(facts | {"columns": columns(facts)}))
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


def _told(part: Element | Flow) -> Row:
    return {key: value for key, value in asdict(part).items() if key not in ("at", "when")}
