"""What a sweep's file asks for: each cell of a product, checked before any work."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args, get_origin

from purpleteam.core.cards import zoo_names
from purpleteam.core.config import from_file, number
from purpleteam.core.digest import canonical_json
from purpleteam.core.errors import ConfigError, PurpleError, reason_of, unknown
from purpleteam.data.sources import DATASETS
from purpleteam.verbs import VERBS, Option
from purpleteam.verbs.verb import check_options, option_of

MAKERS = ("train", "harden", "poison", "repair")
"""Verbs that make a model or images, which later entries may use."""
SWEPT = ("attack", "certify", "detect", "evaluate", *MAKERS)
TAKES = ("model", "images", "training_set")
"""Options that may name what another cell makes."""
OWN = ("out", "run", "progress", "threads", "command")
"""Options that a sweep gives each cell itself."""
LEFT_OUT = ("budget", "detection", "picture", "strip")
"""Options of time, or of files that are no part of a cell's name or of its records."""
MOST = 1_000_000
LONGEST = 1_000_000
"""Seconds of `seconds`: the timers of every system hold them, twice over too."""
KNOWN = ("name", "threads", "seconds", "cells")
KINDS = {float: "a number", int: "a whole number", bool: "true or false"}
NAME = re.compile(r"\w[\w. -]*")
PRODUCT = re.compile(r"[A-Za-z][\w-]*")


@dataclass(frozen=True, eq=False)
class Cell:
    """One call of a verb."""

    verb: str
    options: Mapping[str, Any]
    block: int = 0
    varied: Sequence[str] = ()
    """Options of which its entry lists several."""
    makes: str = ""
    """What later entries call what it makes; empty where nothing is kept."""
    uses: Mapping[str, Cell] = field(default_factory=dict)
    """By option the cell whose product it takes; `options` has that one's name there."""

    @property
    def what(self) -> str:
        """Verb and axes in a line, for people."""
        return " ".join((self.verb, *self._axes()))

    @property
    def label(self) -> str:
        """What the product is called beside others of its name."""
        axes = ", ".join(self._axes())
        return f"{self.makes}({axes})" if axes else self.makes

    def _axes(self) -> Iterator[str]:
        for key in self.varied:
            used = self.uses.get(key)
            yield f"{key}={used.label if used else shortly(self.options[key])}"

    def gives(self, option: str) -> str | None:
        """Return where in its product an option's value is; None where it makes no such thing."""
        if self.verb != "poison":
            return "" if option == "model" else None
        if option == "model":
            return "/model" if self.options.get("train") else None
        return ""


class Named(str):
    """The name of what an earlier entry makes."""

    __slots__ = ()


@dataclass(frozen=True)
class Block:
    """An entry of the file: a cell for each choice of an item from each list, made when asked."""

    place: int
    verb: str
    axes: Mapping[str, Sequence[Any]]
    always: Mapping[str, Any]
    makes: str = ""
    makers: Mapping[str, Sequence[Cell]] = field(default_factory=dict)
    """The cells of earlier entries by what their products are called."""

    @cached_property
    def kept(self) -> tuple[Cell, ...]:
        """The cells of an entry that makes something: the same ones whenever they are asked for."""
        return tuple(self._cells())

    def __iter__(self) -> Iterator[Cell]:
        yield from self.kept if self.makes else self._cells()

    def __len__(self) -> int:
        named = [items for key, items in self.axes.items() if key in TAKES]
        rest = math.prod(len(items) for key, items in self.axes.items() if key not in TAKES)
        return rest * sum(
            math.prod(len(self.makers[name]) for name in _names(chosen))
            for chosen in itertools.product(*named)
        )

    def _cells(self) -> Iterator[Cell]:
        varied = [key for key, items in self.axes.items() if len(items) > 1]
        for chosen in itertools.product(*self.axes.values()):
            given = dict(zip(self.axes, chosen, strict=True))
            names = _names(chosen)
            # a name that stands twice is the same cell in both places
            for makers in itertools.product(*(self.makers[name] for name in names)):
                by_name = dict(zip(names, makers, strict=True))
                uses = {k: by_name[v] for k, v in given.items() if isinstance(v, Named)}
                several = [k for k in uses if len(self.makers[given[k]]) > 1 and k not in varied]
                options = given | dict(self.always)
                yield Cell(self.verb, options, self.place, several + varied, self.makes, uses)


def _names(chosen: Sequence[Any]) -> list[str]:
    return list(dict.fromkeys(item for item in chosen if isinstance(item, Named)))


@dataclass(frozen=True)
class Plan:
    """What a sweep's file asks for."""

    name: str
    threads: int
    blocks: tuple[Block, ...]
    asked: Mapping[str, Any]
    """The file's content."""
    seconds: float | None = None
    """The longest that a cell may take."""

    @property
    def cells(self) -> Iterator[Cell]:
        """All cells in the order of the file: each is made when it is asked for."""
        return itertools.chain.from_iterable(self.blocks)


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
        raise ConfigError(f"{where}: threads = {_brief(threads)}: must be from 1 to 256")
    seconds = content.get("seconds")
    if seconds is not None and not (type(seconds) in (int, float) and 0 < seconds <= LONGEST):
        wanted = f"must be a number above 0 and at most {LONGEST}"
        raise ConfigError(f"{where}: seconds = {_brief(seconds)}: {wanted}")
    read: list[Block] = []
    made: dict[str, Sequence[Cell]] = {}
    for place, block in enumerate(blocks):
        read.append(_block(block, f"{where}: cells[{place}]", place, threads, made))
        if sum(map(len, read)) > MOST:
            raise ConfigError(f"{where}: more than {MOST} cells: split the sweep")
        if read[-1].makes:
            made[read[-1].makes] = read[-1].kept
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
        raise ConfigError(f"{where}: name = {_brief(name)}: {wanted}")
    return Plan(name, threads, tuple(read), content, seconds)


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

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except ValueError:  # of thousands of digits, or of a 13th month
                remedy = "can be no number and no date; in quotes it is a text"
                place = f"{_brief(node.value)} in line {node.start_mark.line + 1}"
                raise yaml.YAMLError(f"{place} {remedy}") from None

    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506 - a safe one
    except FileNotFoundError:
        raise ConfigError(f"sweep {str(path)!r} does not exist") from None
    except RecursionError:
        raise ConfigError(f"sweep {str(path)!r} cannot be read: it is nested too deep") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"sweep {str(path)!r} cannot be read: {reason}") from None


def _block(
    block: Any, where: str, place: int, threads: int, made: Mapping[str, Sequence[Cell]]
) -> Block:
    """Return an entry, all its options as the verb takes them."""
    if not isinstance(block, dict) or not isinstance(block.get("verb"), str):
        raise ConfigError(f"{where}: each entry needs 'verb'; known: {', '.join(SWEPT)}")
    verb, makes = block["verb"], block.get("as", "")
    if verb not in SWEPT:
        raise ConfigError(f"{where}: {unknown('verb', verb, SWEPT)}")
    call = VERBS[verb].call
    options = {
        key: option
        for key, hint in call.__annotations__.items()
        if key not in (*OWN, *LEFT_OUT) and (option := option_of(hint)) is not None
    }
    names = {_typed(key, option): key for key, option in options.items()}
    axes: dict[str, list[Any]] = {}
    for name, value in block.items():
        if name in ("verb", "as"):
            continue
        if (key := names.get(name)) is None:
            raise ConfigError(f"{where}: {unknown('option', name, names)}")
        items = value if isinstance(value, list) else [value]
        if not items:
            raise ConfigError(f"{where}: {name} is an empty list: there would be no cell")
        read = [_value(options[key], item, f"{where}: {name}") for item in items]
        if key in TAKES:
            read = [Named(item) if item in made else item for item in read]
            for maker in itertools.chain.from_iterable(made[n] for n in _names(read)):
                if maker.gives(key) is None:
                    what = "a model; say train: true there" if key == "model" else "images"
                    raise ConfigError(f"{where}: {name} = {maker.makes!r}: it makes not {what}")
        axes[key] = [item for i, item in enumerate(read) if item not in read[:i]]
    if makes != "":
        _check_makes(makes, verb, axes, made, where)
    always = {"threads": threads}
    if "seed" in options and "seed" not in axes:
        always["seed"] = 0
    whole = [key for key, option in options.items() if option.kind in (int, bool)]
    _check_values(verb, axes, always, [*TAKES, *whole], where)
    return Block(place, verb, axes, always, makes, dict(made))


def _check_makes(
    makes: Any, verb: str, axes: Mapping[str, Any], made: Mapping[str, Any], where: str
) -> None:
    """Refuse a name under which nothing is made, or which means something else already."""
    said = f"{where}: as = {_brief(makes)}"
    if verb not in MAKERS or "curve" in axes:
        makers = ", ".join(MAKERS)
        raise ConfigError(f"{said}: {verb} makes nothing that is kept here; what does: {makers}")
    if not isinstance(makes, str) or not PRODUCT.fullmatch(makes):
        raise ConfigError(f"{said}: must be letters, digits, - and _, with a letter first")
    if makes in (*made, *zoo_names(), *DATASETS):
        raise ConfigError(f"{said}: there is one of that name already; choose another")


def _check_values(
    verb: str,
    axes: Mapping[str, Sequence[Any]],
    always: Mapping[str, Any],
    judged: Sequence[str],
    where: str,
) -> None:
    """Have the verb refuse what can never work: each value once, beside each of another axis.

    Options that are `judged` elsewhere, by their range or when they are opened, are not varied.
    """
    first = {**always, **{key: items[0] for key, items in axes.items()}}
    varied = [key for key, items in axes.items() if len(items) > 1 and key not in judged]
    for some in itertools.combinations(varied, min(2, len(varied))):
        for chosen in itertools.product(*(axes[key] for key in some)):
            try:
                check_options(verb, first | dict(zip(some, chosen, strict=True)))
            except (PurpleError, TypeError, ValueError) as error:
                raise ConfigError(f"{where}: {reason_of(error, 600)}") from None


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
        except ValueError:
            raise ConfigError(f"{where} = {_brief(item)}: must be {KINDS[kind]}") from None
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
    try:
        text = repr(item)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def shortly(value: Any) -> str:
    """Return an option's value as text; items of a list with commas."""
    return ",".join(map(shortly, value)) if isinstance(value, list) else f"{value}"
