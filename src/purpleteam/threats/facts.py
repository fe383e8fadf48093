"""The system as plain JSON, for a `Note` of the run, from which the report draws its chapter."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from purpleteam.core.records import ThreatStatus
from purpleteam.threats.diagram import draw
from purpleteam.threats.model import Flow, SystemModel, Threat
from purpleteam.threats.seeds import seed_a_matrix, seed_b_appendix, seed_b_categories, seed_lines
from purpleteam.threats.stride import STRIDE
from purpleteam.threats.tables import matrix, missing, summary

__all__ = ["to_facts"]


def to_facts(system: SystemModel, statuses: Sequence[ThreatStatus] = ()) -> dict[str, Any]:
    """Return all that a report shows of a system; without statuses nothing derived is in it."""
    facts = {
        "name": system.name,
        "description": system.description,
        "stride": STRIDE,
        "zones": [dataclasses.asdict(one) for one in system.zones],
        "elements": [dataclasses.asdict(one) for one in system.elements],
        "flows": [_flow(system, number, one) for number, one in enumerate(system.flows, 1)],
        "threats": [_threat(one) for one in system.threats],
        "mitigations": [dataclasses.asdict(one) for one in system.mitigations],
        "accepted": [
            dataclasses.asdict(one) | {"until": one.until.isoformat()} for one in system.accepted
        ],
        "catalogue": dict(system.catalogue),
        "cells": [dataclasses.asdict(row) for row in matrix(system, statuses)],
        "seed_a": [dataclasses.asdict(row) for row in seed_a_matrix(system, statuses)],
        "seed_b": [dataclasses.asdict(row) for row in seed_b_categories(system, statuses)],
        "seed_b_appendix": [dataclasses.asdict(row) for row in seed_b_appendix(system, statuses)],
        "seed_lines": {
            seed: [dataclasses.asdict(row) for row in seed_lines(system, seed, statuses)]
            for seed in ("A", "B")
        },
        "missing": dataclasses.asdict(missing(system)),
        "summary": dataclasses.asdict(summary(statuses)),
        "diagram": draw(system),
    }
    plain: dict[str, Any] = json.loads(json.dumps(facts))
    return plain


def _flow(system: SystemModel, number: int, flow: Flow) -> dict[str, Any]:
    return dataclasses.asdict(flow) | {"number": number, "crosses": system.crosses(flow)}


def _threat(threat: Threat) -> dict[str, Any]:
    return dataclasses.asdict(threat) | {"level": threat.inherent.level}
