"""Read a system from YAML, refuse what makes no sense in it, and keep the parts that are there."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from purpleteam.core.config import build
from purpleteam.core.errors import ConfigError, reason_of, unknown
from purpleteam.threats.model import Condition, SystemModel

SECTIONS = ("zones", "elements", "flows", "threats", "mitigations", "not_applicable", "accepted")
NEEDED = ("name", "description", "zones", "elements", "flows", "threats", "mitigations")
CONDITIONS: tuple[str, ...] = get_args(Condition)
APP = frozenset(CONDITIONS) - {"brought", "private-data", "private-model"}
"""What is there where a model was trained on public images, measured, and served by the app."""
LONGEST = 60
"""Characters of a model's or dataset's name that are told; of a long path its end says most."""
CATALOGUES = ("atlas", "cwe", "owasp_ml", "nist")
PART_ID, MITIGATION_ID = "[a-z][a-z0-9-]*", "M-[A-Z][A-Z0-9-]*"
CHECK_ID = rf"[a-z]+\.{PART_ID}"


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
    present = APP if path is None and present is None else present
    try:
        values = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"system model {where!r} cannot be read: {reason}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none, say
        raise ConfigError(f"system model {where!r} is not YAML: {reason_of(error)}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"system model {where!r} is not a mapping of sections")
    texts = {"{model}": model, "{dataset}": dataset}
    for placeholder, name in texts.items():
        texts[placeholder] = name if len(name) <= LONGEST else f"...{name[3 - LONGEST :]}"
    system = system_from(_named(values, texts), where)
    return system if present is None else only(system, present)


def system_from(values: Mapping[str, Any], where: str = "system.yaml") -> SystemModel:
    """Return the system that plain data describes; `where` names the source in errors."""
    for key in NEEDED:
        if not values.get(key):
            raise ConfigError(f"{where}: {key!r} is missing or empty")
    told = {key: value for key, value in values.items() if value or key not in SECTIONS}
    system = build(SystemModel, told, where)
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
    there |= {f"private-{kind}" for kind in ("data", "model") if f"public-{kind}" not in there}

    def is_there(when: Collection[str]) -> bool:
        return not when or bool(there & set(when))

    elements = tuple(element for element in system.elements if is_there(element.when))
    ids, zones = {element.id for element in elements}, {element.zone for element in elements}
    flows = tuple(flow for flow in system.flows if {flow.source, flow.target} <= ids)
    flows = tuple(flow for flow in flows if is_there(flow.when))
    ids |= {flow.id for flow in flows}
    threats = tuple(threat for threat in system.threats if threat.element in ids)
    threats = tuple(threat for threat in threats if is_there(threat.when))
    named = {name for threat in threats for name in threat.mitigations}
    named |= {threat.id for threat in threats}
    named |= {ref for threat in threats for refs in threat.refs.values() for ref in refs}
    reasons = (cell for cell in system.not_applicable if is_there(cell.when))
    return replace(
        system,
        zones=tuple(zone for zone in system.zones if zone.id in zones),
        elements=elements,
        flows=flows,
        threats=threats,
        mitigations=tuple(answer for answer in system.mitigations if answer.id in named),
        not_applicable=tuple(cell for cell in reasons if cell.element in ids),
        accepted=tuple(a for a in system.accepted if a.threat in named and is_there(a.when)),
        catalogue={ref: name for ref, name in system.catalogue.items() if ref in named},
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
    zones, threats = ([part.id for part in parts] for parts in (system.zones, system.threats))
    answers = [answer.id for answer in system.mitigations]
    accepted = [acceptance.threat for acceptance in system.accepted]
    groups = {
        "zone": zones,
        "part": [part.id for part in system.parts],
        "threat": threats,
        "mitigation": answers,
        "accepted threat": accepted,
    }
    for kind, ids in groups.items():
        for number, name in enumerate(ids):
            if name in ids[:number]:
                yield f"{kind} {name!r} is there twice"

    elements = [element.id for element in system.elements]
    named: list[tuple[str, str, str, Collection[str]]] = [
        *((f"element {part.id}", "zone", part.zone, zones) for part in system.elements),
        *((f"flow {flow.id}", "element", flow.source, elements) for flow in system.flows),
        *((f"flow {flow.id}", "element", flow.target, elements) for flow in system.flows),
        *(
            ("not_applicable", "element", cell.element, system.kinds)
            for cell in system.not_applicable
        ),
        *(("accepted", "threat", name, threats) for name in accepted),
    ]
    forms = [("part id", part, PART_ID, f"of the form {PART_ID}") for part in system.kinds]
    for answer in system.mitigations:
        forms.append(("mitigation id", answer.id, MITIGATION_ID, f"of the form {MITIGATION_ID}"))
        place = f"mitigation {answer.id}: check id"
        forms += [(place, check, CHECK_ID, "of the form room.name") for check in answer.checks.ids]
    for threat in system.threats:
        place = f"threat {threat.id}"
        form = f"T-{threat.element.removeprefix('f-').upper()}-{threat.stride}"
        forms.append(("threat id", threat.id, re.escape(form) + r"\d+", f"{form!r} and a number"))
        named.append((place, "element", threat.element, system.kinds))
        named += [(place, "mitigation", name, answers) for name in threat.mitigations]
        named += [(place, "catalogue", catalogue, CATALOGUES) for catalogue in threat.refs]
        refs = [ref for kind, refs in threat.refs.items() if kind != "nist" for ref in refs]
        named += [(place, "reference", ref, system.catalogue) for ref in refs]
    for place, kind, name, known in named:
        if name not in known:
            yield f"{place}: {unknown(kind, name, known)}"
    for kind, name, pattern, form in forms:
        if not re.fullmatch(pattern, name):
            yield f"{kind} {name!r} is not {form}"


def _contradictions(system: SystemModel) -> Iterator[str]:
    """Yield what is well named and makes no sense."""
    used = {name for threat in system.threats for name in threat.mitigations}
    for answer in system.mitigations:
        if answer.id not in used:
            yield f"mitigation {answer.id} is named by no threat"
        if answer.checks.all and answer.checks.any:
            yield f"mitigation {answer.id}: checks are either `all` or `any`, not both"
    for cell in system.not_applicable:
        if not cell.reason.strip():
            yield f"not_applicable: {cell.element} has no reason"
        for letter in cell.stride:
            for threat in system.threats_at((cell.element, letter)):
                if not cell.when or not threat.when or set(cell.when) & set(threat.when):
                    yield f"not_applicable: {cell.element}/{letter} holds a threat"
    for acceptance in system.accepted:
        if not (acceptance.reason.strip() and acceptance.by.strip()):
            yield f"accepted: {acceptance.threat} needs a reason and a name"
