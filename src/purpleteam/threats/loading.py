"""Read a system from YAML, refuse what makes no sense in it, and keep the parts that are there.

Ids are of their shape and unique, and whatever is named exists. Whether every STRIDE cell is
answered is no error but a gap, listed by `status.missing`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_args

from purpleteam.core.config import build
from purpleteam.core.errors import ConfigError, unknown
from purpleteam.threats import model as parts
from purpleteam.threats.model import SystemModel, Threat

T = TypeVar("T")

SECTIONS: dict[str, type[Any]] = {
    "zones": parts.Zone,
    "elements": parts.Element,
    "flows": parts.Flow,
    "threats": parts.Threat,
    "mitigations": parts.Mitigation,
    "not_applicable": parts.NotApplicable,
    "accepted": parts.Acceptance,
}
PLAIN = ("name", "description", "catalogue")
NEEDED = ("name", "description", "zones", "elements", "flows", "threats", "mitigations")
CONDITIONS: tuple[str, ...] = get_args(parts.Condition)
APP = frozenset(CONDITIONS) - {"brought", "private-data", "private-model"}
"""What is there where a model was trained on public images, measured, and served by the app."""
LONGEST = 60
"""Characters of a model's or dataset's name that are told; of a long path its end says most."""
CHECK_ID = re.compile(r"[a-z]+\.[a-z][a-z0-9-]*")
PART_ID = re.compile(r"[a-z][a-z0-9-]*")
MITIGATION_ID = re.compile(r"M-[A-Z][A-Z0-9-]*")
CATALOGUES = ("atlas", "cwe", "owasp_ml", "nist")


def load_system(
    path: Path | None = None,
    present: Collection[str] | None = None,
    *,
    model: str = "the model",
    dataset: str = "the dataset",
) -> SystemModel:
    """Return the system in a YAML file, or the one that ships with Purpleteam, as far as it is.

    Args:
        path: the file; without it the packaged image classifier.
        present: what is there (`model.Condition`); parts, threats and reasons whose `when` names
            none of it are left out. Without it a file is taken whole, and the packaged system is
            that of the app: trained on public images, measured and served.
        model: what texts say for `{model}`.
        dataset: what texts say for `{dataset}`.

    Raises:
        ConfigError: the file cannot be read, holds an unknown key, or names what is not there.
    """
    if path is None:
        where = "system.yaml"
        text = (resources.files("purpleteam.threats") / where).read_text(encoding="utf-8")
        present = APP if present is None else present
    else:
        where = str(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"system model {where!r} cannot be read: {reason}") from None
    names = {"{model}": _short(model), "{dataset}": _short(dataset)}
    system = system_from(_named(_read(text, where), names), where)
    return system if present is None else only(system, present)


def system_from(values: Mapping[str, Any], where: str = "system.yaml") -> SystemModel:
    """Return the system that plain data describes; `where` names the source in errors."""
    for key in values:
        if key not in SECTIONS and key not in PLAIN:
            raise ConfigError(f"{where}: {unknown('key', key, [*SECTIONS, *PLAIN])}")
    for key in NEEDED:
        if not values.get(key):
            raise ConfigError(f"{where}: {key!r} is missing or empty")
    sections: dict[str, Any] = {
        key: _section(cls, values.get(key) or [], f"{where}: {key}")
        for key, cls in SECTIONS.items()
    }
    plain = {key: values[key] for key in PLAIN if key in values}
    system = build(SystemModel, {**plain, **sections}, where)
    for problem in _problems(system):
        raise ConfigError(f"{where}: {problem}")
    return system


def only(system: SystemModel, present: Collection[str]) -> SystemModel:
    """Return the system without what is not there, and without what is then named by nothing.

    Data and models count as private where nobody says that they are public.
    """
    for word in present:
        if word not in CONDITIONS:
            raise ConfigError(unknown("part of a system", word, CONDITIONS))
    there = set(present)
    there |= {f"private-{what}" for what in ("data", "model") if f"public-{what}" not in there}

    def is_there(item: parts.Element | parts.Flow | parts.Threat | parts.NotApplicable) -> bool:
        return not item.when or bool(there & set(item.when))

    elements = tuple(element for element in system.elements if is_there(element))
    ids = {element.id for element in elements}
    flows = tuple(one for one in system.flows if is_there(one) and {one.source, one.target} <= ids)
    ids |= {flow.id for flow in flows}
    threats = tuple(one for one in system.threats if is_there(one) and one.element in ids)
    zones = {element.zone for element in elements}
    named = {name for threat in threats for name in threat.mitigations}
    refs = {ref for threat in threats for some in threat.refs.values() for ref in some}
    known = {threat.id for threat in threats}
    return replace(
        system,
        zones=tuple(zone for zone in system.zones if zone.id in zones),
        elements=elements,
        flows=flows,
        threats=threats,
        mitigations=tuple(one for one in system.mitigations if one.id in named),
        not_applicable=tuple(
            one for one in system.not_applicable if is_there(one) and one.element in ids
        ),
        accepted=tuple(one for one in system.accepted if one.threat in known),
        catalogue={ref: name for ref, name in system.catalogue.items() if ref in refs},
    )


def _read(text: str, where: str) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none, say
        message = " ".join(str(error).split())
        raise ConfigError(f"system model {where!r} is not YAML: {message}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"system model {where!r} is not a mapping of sections")
    return values


def _named(value: Any, names: Mapping[str, str]) -> Any:
    """Return plain data with each placeholder replaced in every text."""
    if isinstance(value, str):
        return re.sub(r"\{(?:model|dataset)\}", lambda match: names[match[0]], value)
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    if isinstance(value, dict):
        return {key: _named(item, names) for key, item in value.items()}
    return value


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"...{name[3 - LONGEST :]}"


def _section(cls: type[T], items: Any, where: str) -> tuple[T, ...]:
    if not isinstance(items, list):
        raise ConfigError(f"{where} must be a list")
    made = []
    for number, item in enumerate(items, 1):
        if not isinstance(item, Mapping):
            raise ConfigError(f"{where}: entry {number} must be a mapping, not {item!r}")
        name = item.get("id") or item.get("threat") or item.get("element") or number
        made.append(build(cls, item, f"{where}: {name}"))
    return tuple(made)


def _problems(system: SystemModel) -> Iterator[str]:
    """Yield what is wrong, the first thing first."""
    yield from _duplicates(system)
    zones = [zone.id for zone in system.zones]
    elements = [element.id for element in system.elements]
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
    for threat in system.threats:
        yield from _threat(system, threat)
    yield from _mitigations(system)
    yield from _reasons(system)


def _duplicates(system: SystemModel) -> Iterator[str]:
    groups: dict[str, list[str]] = {
        "zone": [zone.id for zone in system.zones],
        "part": [part.id for part in system.parts],
        "threat": [threat.id for threat in system.threats],
        "mitigation": [mitigation.id for mitigation in system.mitigations],
        "accepted threat": [acceptance.threat for acceptance in system.accepted],
    }
    for kind, ids in groups.items():
        for number, name in enumerate(ids):
            if name in ids[:number]:
                yield f"{kind} {name!r} is there twice"


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


def _reasons(system: SystemModel) -> Iterator[str]:
    for one in system.not_applicable:
        if one.element not in system.kinds:
            yield f"not_applicable: {unknown('element', one.element, system.kinds)}"
        if not one.reason.strip():
            yield f"not_applicable: {one.element} has no reason"
        for letter in one.stride:
            for threat in system.threats_at((one.element, letter)):
                if not one.when or not threat.when or set(one.when) & set(threat.when):
                    yield f"not_applicable: {one.element}/{letter} holds a threat"
    threats = [threat.id for threat in system.threats]
    for acceptance in system.accepted:
        if acceptance.threat not in threats:
            yield f"accepted: {unknown('threat', acceptance.threat, threats)}"
        if not (acceptance.reason.strip() and acceptance.by.strip()):
            yield f"accepted: {acceptance.threat} needs a reason and a name"
