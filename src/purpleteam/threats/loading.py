"""Read a system from YAML, refuse what makes no sense in it, and keep the parts that are there."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from purpleteam.core.config import build
from purpleteam.core.errors import ConfigError, reason_of, unknown
from purpleteam.threats import model as parts
from purpleteam.threats.model import SystemModel

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
        present: what is there (`model.Condition`); what has a `when` that names none of it is left
            out. By default a file is taken whole, and the packaged system is that of the app.
        model: what texts say for `{model}`.
        dataset: what texts say for `{dataset}`.

    Raises:
        ConfigError: the file cannot be read, holds an unknown key, or names what is not there.
    """
    import yaml

    where = str(path or "system.yaml")
    source = path or resources.files("purpleteam.threats") / where
    if path is None and present is None:
        present = APP
    try:
        values = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"system model {where!r} cannot be read: {reason}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none, say
        raise ConfigError(f"system model {where!r} is not YAML: {reason_of(error)}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"system model {where!r} is not a mapping of sections")
    names = {
        placeholder: name if len(name) <= LONGEST else f"...{name[3 - LONGEST :]}"
        for placeholder, name in (("{model}", model), ("{dataset}", dataset))
    }
    system = system_from(_named(values, names), where)
    return system if present is None else only(system, present)


def system_from(values: Mapping[str, Any], where: str = "system.yaml") -> SystemModel:
    """Return the system that plain data describes; `where` names the source in errors."""
    for key in values:
        if key not in SECTIONS and key not in PLAIN:
            raise ConfigError(f"{where}: {unknown('key', key, [*SECTIONS, *PLAIN])}")
    for key in NEEDED:
        if not values.get(key):
            raise ConfigError(f"{where}: {key!r} is missing or empty")
    made: dict[str, Any] = {key: values[key] for key in PLAIN if key in values}
    for key, cls in SECTIONS.items():
        items, section = values.get(key) or [], f"{where}: {key}"
        if not isinstance(items, list):
            raise ConfigError(f"{section} must be a list")
        entries = []
        for number, item in enumerate(items, 1):
            if not isinstance(item, Mapping):
                raise ConfigError(f"{section}: entry {number} must be a mapping, not {item!r}")
            name = item.get("id") or item.get("threat") or item.get("element") or number
            entries.append(build(cls, item, f"{section}: {name}"))
        made[key] = tuple(entries)
    system = build(SystemModel, made, where)
    for problem in (*_misnamed(system), *_contradictions(system)):
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
    reasons = (one for one in system.not_applicable if is_there(one) and one.element in ids)
    return replace(
        system,
        zones=tuple(zone for zone in system.zones if zone.id in zones),
        elements=elements,
        flows=flows,
        threats=threats,
        mitigations=tuple(one for one in system.mitigations if one.id in named),
        not_applicable=tuple(reasons),
        accepted=tuple(one for one in system.accepted if one.threat in known),
        catalogue={ref: name for ref, name in system.catalogue.items() if ref in refs},
    )


def _named(value: Any, names: Mapping[str, str]) -> Any:
    """Return plain data with each placeholder replaced in every text."""
    if isinstance(value, str):
        return re.sub(r"\{(?:model|dataset)\}", lambda match: names[match[0]], value)
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    if isinstance(value, dict):
        return {key: _named(item, names) for key, item in value.items()}
    return value


def _misnamed(system: SystemModel) -> Iterator[str]:
    """Yield ids that are there twice, that name nothing, and that are not of their form."""
    groups = {
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

    elements = [element.id for element in system.elements]
    named: list[tuple[str, str, str, Collection[str]]] = [
        *((f"element {it.id}", "zone", it.zone, groups["zone"]) for it in system.elements),
        *((f"flow {it.id}", "element", it.source, elements) for it in system.flows),
        *((f"flow {it.id}", "element", it.target, elements) for it in system.flows),
        *(("not_applicable", "element", it.element, system.kinds) for it in system.not_applicable),
        *(("accepted", "threat", it.threat, groups["threat"]) for it in system.accepted),
    ]
    for threat in system.threats:
        where = f"threat {threat.id}"
        named.append((where, "element", threat.element, system.kinds))
        named += [(where, "mitigation", name, system.mitigation) for name in threat.mitigations]
        named += [(where, "catalogue", catalogue, CATALOGUES) for catalogue in threat.refs]
        refs = [ref for kind, some in threat.refs.items() if kind != "nist" for ref in some]
        named += [(where, "reference", ref, system.catalogue) for ref in refs]
    for where, kind, name, known in named:
        if name not in known:
            yield f"{where}: {unknown(kind, name, known)}"

    part_id, mitigation_id = "[a-z][a-z0-9-]*", "M-[A-Z][A-Z0-9-]*"
    forms = [("part id", part, part_id, f"of the form {part_id}") for part in system.kinds]
    for mitigation in system.mitigations:
        form = f"of the form {mitigation_id}"
        forms.append(("mitigation id", mitigation.id, mitigation_id, form))
        what, form = f"mitigation {mitigation.id}: check id", r"[a-z]+\.[a-z][a-z0-9-]*"
        forms += [(what, check, form, "of the form room.name") for check in mitigation.checks.ids]
    for threat in system.threats:
        form = f"T-{threat.element.removeprefix('f-').upper()}-{threat.stride}"
        forms.append(("threat id", threat.id, re.escape(form) + r"\d+", f"{form!r} and a number"))
    for what, name, form, told in forms:
        if not re.fullmatch(form, name):
            yield f"{what} {name!r} is not {told}"


def _contradictions(system: SystemModel) -> Iterator[str]:
    """Yield what is well named and makes no sense."""
    used = {name for threat in system.threats for name in threat.mitigations}
    for mitigation in system.mitigations:
        if mitigation.id not in used:
            yield f"mitigation {mitigation.id} is named by no threat"
        if mitigation.checks.all and mitigation.checks.any:
            yield f"mitigation {mitigation.id}: checks are either `all` or `any`, not both"
    for one in system.not_applicable:
        if not one.reason.strip():
            yield f"not_applicable: {one.element} has no reason"
        for letter in one.stride:
            for threat in system.threats_at((one.element, letter)):
                if not one.when or not threat.when or set(one.when) & set(threat.when):
                    yield f"not_applicable: {one.element}/{letter} holds a threat"
    for acceptance in system.accepted:
        if not (acceptance.reason.strip() and acceptance.by.strip()):
            yield f"accepted: {acceptance.threat} needs a reason and a name"
