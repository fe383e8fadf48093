"""What a system must satisfy before anything is derived from it.

Ids are of their shape and unique, and whatever is named exists. Whether every STRIDE cell is
answered is no error but a gap, listed by `tables.missing`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from purpleteam.core.errors import ConfigError, unknown
from purpleteam.threats.model import SystemModel, Threat

__all__ = ["validate"]

CHECK_ID = re.compile(r"[a-z]+\.[a-z][a-z0-9-]*")
PART_ID = re.compile(r"[a-z][a-z0-9-]*")
MITIGATION_ID = re.compile(r"M-[A-Z][A-Z0-9-]*")
CATALOGUES = ("atlas", "cwe", "owasp_ml", "nist")


def validate(system: SystemModel, where: str) -> None:
    """Raise a ConfigError that names the first thing that is wrong, if one is."""
    for problem in _problems(system):
        raise ConfigError(f"{where}: {problem}")


def _problems(system: SystemModel) -> Iterator[str]:
    yield from _duplicates(system)
    yield from _parts(system)
    for threat in system.threats:
        yield from _threat(system, threat)
    yield from _mitigations(system)
    yield from _cells(system)
    yield from _accepted(system)
    yield from _origins(system)


def _duplicates(system: SystemModel) -> Iterator[str]:
    groups: dict[str, Iterable[str]] = {
        "zone": (one.id for one in system.zones),
        "part": (one.id for one in system.parts),
        "threat": (one.id for one in system.threats),
        "mitigation": (one.id for one in system.mitigations),
        "accepted threat": (one.threat for one in system.accepted),
        "seed item": (one.id for one in system.seed_items),
    }
    for kind, ids in groups.items():
        seen: set[str] = set()
        for one in ids:
            if one in seen:
                yield f"{kind} {one!r} is there twice"
            seen.add(one)


def _parts(system: SystemModel) -> Iterator[str]:
    zones = [one.id for one in system.zones]
    elements = [one.id for one in system.elements]
    for part in system.kinds:
        if not PART_ID.fullmatch(part):
            yield f"part id {part!r} is not of the form {PART_ID.pattern}"
    for element in system.elements:
        if element.zone not in zones:
            yield f"element {element.id}: {unknown('zone', element.zone, zones)}"
    for flow in system.flows:
        for end in (flow.source, flow.target):
            if end not in elements:
                yield f"flow {flow.id}: {unknown('element', end, elements)}"


def _threat(system: SystemModel, threat: Threat) -> Iterator[str]:
    if threat.element not in system.kinds:
        yield f"threat {threat.id}: {unknown('element', threat.element, system.kinds)}"
    form = f"T-{threat.element.removeprefix('f-').upper()}-{threat.stride}"
    if not re.fullmatch(re.escape(form) + r"\d+", threat.id):
        yield f"threat id {threat.id!r} is not {form!r} and a number"
    for name in threat.mitigations:
        if name not in system.mitigation:
            yield f"threat {threat.id}: {unknown('mitigation', name, system.mitigation)}"
    for catalogue, refs in threat.refs.items():
        if catalogue not in CATALOGUES:
            yield f"threat {threat.id}: {unknown('catalogue', catalogue, CATALOGUES)}"
        for ref in refs:
            if catalogue != "nist" and ref not in system.catalogue:
                yield f"threat {threat.id}: {unknown('reference', ref, system.catalogue)}"


def _mitigations(system: SystemModel) -> Iterator[str]:
    used = {name for threat in system.threats for name in threat.mitigations}
    for one in system.mitigations:
        if not MITIGATION_ID.fullmatch(one.id):
            yield f"mitigation id {one.id!r} is not of the form {MITIGATION_ID.pattern}"
        if one.id not in used:
            yield f"mitigation {one.id} is named by no threat"
        if one.checks.all and one.checks.any:
            yield f"mitigation {one.id}: checks are either `all` or `any`, not both"
        for check in one.checks.ids:
            if not CHECK_ID.fullmatch(check):
                yield f"mitigation {one.id}: check id {check!r} is not of the form room.name"


def _cells(system: SystemModel) -> Iterator[str]:
    for one in system.not_applicable:
        if one.element not in system.kinds:
            yield f"not_applicable: {unknown('element', one.element, system.kinds)}"
        if not one.reason.strip():
            yield f"not_applicable: {one.element} has no reason"
        for letter in one.stride:
            if system.threats_at((one.element, letter)):
                yield f"not_applicable: {one.element}/{letter} holds a threat"


def _accepted(system: SystemModel) -> Iterator[str]:
    threats = [one.id for one in system.threats]
    for one in system.accepted:
        if one.threat not in threats:
            yield f"accepted: {unknown('threat', one.threat, threats)}"
        if not (one.reason.strip() and one.by.strip()):
            yield f"accepted: {one.threat} needs a reason and a name"


def _origins(system: SystemModel) -> Iterator[str]:
    known = [one.id for one in system.seed_items]
    for name, origins in system.origins.items():
        for origin in origins:
            if origin not in known:
                yield f"{name}: {unknown('seed item', origin, known)}"
