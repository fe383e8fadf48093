"""What a sweep's file asks for: each cell of a product, checked before any work."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin

from purpleteam.core.config import from_file, number
from purpleteam.core.digest import canonical_json
from purpleteam.core.errors import ConfigError, PurpleError, unknown
from purpleteam.core.runfolder import key_of
from purpleteam.verbs import VERBS, Option
from purpleteam.verbs.verb import option_of

SWEPT = ("attack", "certify", "detect", "evaluate")
OWN = ("out", "run", "progress", "threads", "command")
"""Options that a sweep gives each cell itself."""
MOST = 1_000_000
KNOWN = ("name", "threads", "cells")
KINDS = {float: "a number", int: "a whole number", bool: "true or false"}
NAME = re.compile(r"\w[\w. -]*")


@dataclass(frozen=True)
class Cell:
    """One call of a verb."""

    verb: str
    options: Mapping[str, Any]
    what: str
    """Verb and axes in a line, for people."""
    block: int = 0


@dataclass(frozen=True)
class Plan:
    """What a sweep's file asks for."""

    name: str
    threads: int
    cells: tuple[Cell, ...]
    asked: Mapping[str, Any]
    """The file's content."""


def read_plan(path: Path) -> Plan:
    """Return the cells that a YAML or TOML file asks for.

    Raises:
        ConfigError: it cannot be read, or asks for what no verb takes.
    """
    content = from_file(path) if path.suffix == ".toml" else _yaml(path)
    where = str(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: a sweep is a mapping with 'cells', not {content!r}")
    for key in content:
        if key not in KNOWN:
            raise ConfigError(f"{where}: {unknown('key', key, KNOWN)}")
    blocks, threads = content.get("cells"), content.get("threads", 1)
    if not isinstance(blocks, list) or not blocks:
        example = "such as [{verb: attack, model: [standard], epsilon: [0.1, 0.2]}]"
        raise ConfigError(f"{where}: 'cells' must list what is called, {example}")
    if type(threads) is not int or not 1 <= threads <= 256:
        raise ConfigError(f"{where}: threads = {threads!r}: must be from 1 to 256")
    cells: dict[str, Cell] = {}
    for place, block in enumerate(blocks):
        for cell in _product(block, f"{where}: cells[{place}]", place, threads):
            cells.setdefault(key_of(cell.verb, cell.options), cell)
            if len(cells) > MOST:
                raise ConfigError(f"{where}: more than {MOST} cells: split the sweep")
    try:
        canonical_json(content).encode()
    except (TypeError, ValueError) as error:
        remedy = "put dates and the like in quotes"
        raise ConfigError(
            f"{where}: it holds what is no text or number ({error}); {remedy}"
        ) from None
    name = content.get("name", path.stem)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        wanted = "must be letters, digits and - _ . in between: it names a folder"
        raise ConfigError(f"{where}: name = {name!r}: {wanted}")
    return Plan(name, threads, tuple(cells.values()), content)


def _yaml(path: Path) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses a key that stands twice, of which only the last would count."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = [key.value for key, _ in node.value if isinstance(key.value, str)]
            if twice := next((name for name in names if names.count(name) > 1), None):
                place = node.start_mark.line + 1
                raise yaml.YAMLError(f"{twice!r} stands twice in the entry of line {place}")
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506 - a safe one
    except FileNotFoundError:
        raise ConfigError(f"sweep {str(path)!r} does not exist") from None
    except RecursionError:
        raise ConfigError(f"sweep {str(path)!r} cannot be read: it is nested too deep") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"sweep {str(path)!r} cannot be read: {reason}") from None


def _product(block: Any, where: str, place: int, threads: int) -> Iterator[Cell]:
    """Yield the cells of a block: one for each choice of an item from each list."""
    if not isinstance(block, dict) or not isinstance(block.get("verb"), str):
        raise ConfigError(f"{where}: each entry needs 'verb'; known: {', '.join(SWEPT)}")
    verb = block["verb"]
    if verb not in SWEPT:
        raise ConfigError(f"{where}: {unknown('verb', verb, SWEPT)}")
    call = VERBS[verb].call
    options = {
        key: option
        for key, hint in call.__annotations__.items()
        if key not in OWN and (option := option_of(hint)) is not None
    }
    names = {_typed(key, option): key for key, option in options.items()}
    axes: dict[str, list[Any]] = {}
    for name, value in block.items():
        if name == "verb":
            continue
        if (key := names.get(name)) is None:
            raise ConfigError(f"{where}: {unknown('option', name, names)}")
        items = value if isinstance(value, list) else [value]
        if not items:
            raise ConfigError(f"{where}: {name} is an empty list: there would be no cell")
        axes[key] = [_value(options[key], item, f"{where}: {name}") for item in items]
    varied = [key for key, items in axes.items() if len(items) > 1]
    for chosen in itertools.product(*axes.values()):
        given = dict(zip(axes, chosen, strict=True))
        if "seed" in options:
            given.setdefault("seed", 0)
        _check(verb, given, where)
        told = (f"{key}={shortly(given[key])}" for key in varied)
        yield Cell(verb, given | {"threads": threads}, " ".join((verb, *told)), place)


def _check(verb: str, given: Mapping[str, Any], where: str) -> None:
    """Refuse what an attack does not take, before any work."""
    from purpleteam.verbs.ladders import attack_from

    radii = given.get("epsilon") or [None]
    for text in given.get("attack", ()) if verb == "attack" else ():
        try:
            attack_from(text, epsilon=radii[0], norm=given.get("norm"))
        except PurpleError as error:
            raise ConfigError(f"{where}: {error}") from None


def _typed(key: str, option: Option) -> str:
    """Return what an option is called in a file: as on the command line, without its dashes."""
    return (option.name or key).removeprefix("--").replace("-", "_")


def _value(option: Option, item: Any, where: str) -> Any:
    """Return an item as the verb takes it; of an option that is repeatable, in a list."""
    kind = option.kind or str
    if get_origin(kind) is list:
        inner = replace(option, kind=get_args(kind)[0])
        return [_value(inner, one, where) for one in (item if isinstance(item, list) else [item])]
    if isinstance(item, dict | list) or item is None:
        raise ConfigError(f"{where} = {_brief(item)}: must be {KINDS.get(kind, 'text')}")
    if kind is float:
        try:
            return number(str(item))
        except ConfigError as error:
            raise ConfigError(f"{where}: {str(error)[:200]}") from None
    if kind in (int, bool):
        if type(item) is not kind:
            raise ConfigError(f"{where} = {_brief(item)}: must be {KINDS[kind]}")
        if option.least is not None and item < option.least:
            raise ConfigError(f"{where} = {_brief(item)}: must be at least {option.least}")
        if option.most is not None and item > option.most:
            raise ConfigError(f"{where} = {_brief(item)}: must be at most {option.most}")
        return item
    return str(item)


def _brief(item: Any) -> str:
    return repr(item)[:60]


def shortly(value: Any) -> str:
    """Return an option's value as text; items of a list with commas."""
    return ",".join(map(shortly, value)) if isinstance(value, list) else f"{value}"
