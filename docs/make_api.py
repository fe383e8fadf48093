"""docs/api.md, made from docstrings: what the package, its verbs and its rooms offer.

`python docs/make_api.py` writes the page; with `--check` it writes nothing, and exits 1 where the
page and the docstrings differ. Public is what an `__init__` lists in `__all__`, nothing else.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
import textwrap
import typing
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import purpleteam
from purpleteam.core.registry import Registry
from purpleteam.verbs import VERBS
from purpleteam.verbs.verb import option_of

PAGE = Path(__file__).resolve().parent / "api.md"
ROOMS = tuple(f"purpleteam.{room}" for room in purpleteam.ROOMS if room not in ("core", "serve"))
FIELD = re.compile(r'^    (\w+): [^\n]+\n    """(.*?)"""', re.MULTILINE | re.DOTALL)
WIDTH = 100
SHARED = 3
"""A parameter that means the same in this many verbs is described once."""


def page() -> str:
    """Return the whole page."""
    seen: dict[int, tuple[str, bool]] = {}
    sections = [section(module, seen) for module in ("purpleteam.verbs", *ROOMS)]
    parts = sum(part for _, part in seen.values())
    own = [name for name in purpleteam.__all__ if callable(getattr(purpleteam, name))]
    shared = [f"- `{key}`: {told}" for key, told in shared_options().items()]
    head = f"""# The public interface

Made from docstrings by `python docs/make_api.py` (`make docs`); a test fails where they differ.
{len(seen) - parts} names, and {parts} attacks that are also known by a name in their registry.
Everything else under `purpleteam` is internal and may change.

`import purpleteam as pt` is instant; a room is loaded when it is first named. These verbs are names
of the package itself: {", ".join(f"`{name}`" for name in own)}. `pt.certify`, `pt.scan` and
`pt.threats` are rooms that can be called as the verbs of their names.

A verb returns a `Result`. These of its parameters mean the same everywhere:
"""
    return "\n\n".join([head + "\n" + "\n".join(shared), *sections]) + "\n"


def section(module: str, seen: dict[int, tuple[str, bool]]) -> str:
    """Return what one `__init__` offers; what an earlier one offered is not told again."""
    room = importlib.import_module(module)
    lines = [f"## {module}", first_paragraph(inspect.getdoc(room) or "")]
    for name in sorted(room.__all__, key=str.lower):
        thing = getattr(room, name)
        if id(thing) not in seen:
            seen[id(thing)] = (name, is_part(thing))
            lines += entry(name, thing)
    return "\n\n".join(lines)


def is_part(thing: Any) -> bool:
    """Say whether it is also found by a name in a registry: such as PGD, in ATTACKS."""
    registries = importlib.import_module("purpleteam.attacks").ATTACKS
    return any(thing is part for part in registries.values())


def entry(name: str, thing: Any) -> Iterator[str]:
    """Yield the title, the signature, the first paragraph and the arguments of a name."""
    yield f"### {name}"
    if isinstance(thing, Registry):
        yield f"The registry of kind *{thing.kind}*: {', '.join(f'`{key}`' for key in thing)}."
        return
    if isinstance(thing, Mapping | tuple):
        yield f"`{tuple(thing)}`"
        return
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        yield f"`{thing}`"  # the name of a type
        return
    text = inspect.getdoc(thing) or ""
    yield f"```text\n{signature(name, thing)}\n```"
    if not text.startswith(f"{name}("):  # what dataclasses write by themselves
        yield first_paragraph(text)
    rows = [*fields(thing), *options(name, thing), *arguments(text)]
    if rows:
        yield "\n".join(f"- `{key}`: {told}" for key, told in dict(rows).items())


def first_paragraph(text: str) -> str:
    """Return a docstring's first paragraph on one line."""
    return " ".join(text.split("\n\n")[0].split())


def signature(name: str, thing: Any) -> str:
    """Return the call, its annotations left out where they are those of the command line."""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return name
    shown = [shortly(one) for one in parameters if one.name not in ("self", "progress")]
    if any(one.kind is one.KEYWORD_ONLY for one in parameters) and "*" not in shown:
        first = next(i for i, one in enumerate(parameters) if one.kind is one.KEYWORD_ONLY)
        shown.insert(first, "*")
    line = f"{name}({', '.join(shown)})"
    return textwrap.fill(line, WIDTH, subsequent_indent=" " * 4, break_on_hyphens=False)


def shortly(parameter: inspect.Parameter) -> str:
    """Return a parameter with its default."""
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    default = parameter.default
    if default is parameter.empty:
        return stars + parameter.name
    plain = default is None or isinstance(default, str | int | float | tuple)
    return f"{parameter.name}={default!r}" if plain else f"{parameter.name}=..."


def options(name: str, thing: Any) -> Iterator[tuple[str, str]]:
    """Yield what the command line says of a verb's parameters, where they are its own."""
    shared = shared_options().items()
    yield from (one for one in all_options(name, thing) if one not in shared)


def all_options(name: str, thing: Any) -> Iterator[tuple[str, str]]:
    """Yield what the command line says of each parameter of a verb."""
    if name not in VERBS or VERBS[name].call is not thing:
        return
    hints = typing.get_type_hints(thing, include_extras=True)
    for key in inspect.signature(thing).parameters:
        if option := option_of(hints.get(key)):
            yield key, option.help
    if VERBS[name].measures:
        yield "run", "Where records go: a run folder, or one that is empty or not there yet."


@cache
def shared_options() -> dict[str, str]:
    """Return the parameters that mean the same in several verbs."""
    own = importlib.import_module("purpleteam.verbs")
    told = Counter(
        pair
        for name in own.__all__
        if name in VERBS
        for pair in all_options(name, getattr(own, name))
    )
    return dict(sorted(pair for pair, count in told.items() if count >= SHARED))


def fields(thing: Any) -> Iterator[tuple[str, str]]:
    """Yield the strings under the fields of a dataclass."""
    if not (inspect.isclass(thing) and dataclasses.is_dataclass(thing)):
        return
    known = {one.name for one in dataclasses.fields(thing)}
    for base in reversed(thing.__mro__):
        if base.__module__.startswith("purpleteam"):
            text = inspect.getsource(base)
            for key, told in re.findall(
                r'^    (\w+): [^\n]+\n    """(.*?)"""', text, re.MULTILINE | re.DOTALL
            ):
                if key in known:
                    yield key, " ".join(told.split())


def arguments(text: str) -> Iterator[tuple[str, str]]:
    """Yield the arguments or attributes that a docstring tells."""
    found = re.search(r"^(?:Args|Attributes):\n((?: +.*(?:\n|$))+)", text, re.MULTILINE)
    for block in re.split(r"^ {4}(?! )", found[1] if found else "", flags=re.MULTILINE)[1:]:
        key, _, told = block.partition(": ")
        yield key, " ".join(told.split())


def main() -> None:
    """Write the page, or with --check say whether it is what the docstrings say."""
    text = page()
    if "--check" in sys.argv[1:] and PAGE.read_text(encoding="utf-8") != text:
        sys.exit(f"{PAGE.name} and the docstrings differ: make docs")
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
