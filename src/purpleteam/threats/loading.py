"""Read a system from YAML, as plain data, with every key known and every id resolved."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from purpleteam.core.config import build
from purpleteam.core.errors import ConfigError, unknown
from purpleteam.threats import model
from purpleteam.threats.model import SystemModel
from purpleteam.threats.validation import validate

__all__ = ["load_system", "system_from"]

T = TypeVar("T")

SECTIONS: dict[str, type[Any]] = {
    "zones": model.Zone,
    "elements": model.Element,
    "flows": model.Flow,
    "threats": model.Threat,
    "mitigations": model.Mitigation,
    "not_applicable": model.NotApplicable,
    "accepted": model.Acceptance,
    "seed_items": model.SeedItem,
    "seed_levels": model.SeedLevel,
}
PLAIN = ("name", "description", "catalogue")
NEEDED = ("name", "description", "zones", "elements", "flows", "threats", "mitigations")


def load_system(path: Path | None = None) -> SystemModel:
    """Return the system in a YAML file; without a path the MNIST app that ships with Purpleteam.

    Raises:
        ConfigError: the file cannot be read, holds an unknown key, or names what is not there.
    """
    if path is None:
        packaged = resources.files("purpleteam.threats") / "system.yaml"
        return system_from(_read(packaged.read_text(encoding="utf-8"), "system.yaml"))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"system model {str(path)!r} cannot be read: {error}") from None
    return system_from(_read(text, str(path)), str(path))


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
    validate(system, where)
    return system


def _read(text: str, where: str) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        message = " ".join(str(error).split())
        raise ConfigError(f"system model {where!r} is not YAML: {message}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"system model {where!r} is not a mapping of sections")
    return values


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
