"""What makes a function a verb: its options, its place in VERBS, and the run that it leaves.

A verb is one function in one file. `@verb()` registers it under its name; the command line makes
its options from the parameters that are annotated with an `Option`, the others are for Python
alone. Heavy imports belong inside the function: the command line imports every verb to list them.
"""

from __future__ import annotations

import functools
import inspect
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from purpleteam.core.errors import RunError, UsageError
from purpleteam.core.plugins import asked_plugins
from purpleteam.core.records import Note, Record
from purpleteam.core.registry import Registry
from purpleteam.core.runfolder import RunFolder
from purpleteam.verbs.result import Result

V = TypeVar("V", bound=Callable[..., Result])
ASKED = "asked"
"""Name of the note that says which call of a verb made the records before it."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """How a parameter is asked for on the command line."""

    help: str
    kind: Any = str
    """What the text becomes: str, int, float (8/255 too), bool, Path, or a list of one of them."""
    name: str | None = None
    """Such as `--epsilon`; by default the parameter's own. A name without dashes is an argument."""
    least: int | None = None
    most: int | None = None


@dataclass(frozen=True)
class Verb:
    """A registered verb."""

    called: str
    call: Callable[..., Result]
    measures: bool
    """Whether it leaves records, and so a run, and can gate."""


VERBS: Registry[Verb] = Registry("verb")


def verb(name: str | None = None, *, measures: bool = True) -> Callable[[V], V]:
    """Register a function as a verb. One that measures also takes `run` and `command`.

    `run` is where its records go: a run, or a folder that is empty or not there yet; None keeps
    them in the result alone. A `RunFolder` is only written files into: its owner keeps the records.
    """

    def register(function: V) -> V:
        called = name or function.__name__

        @functools.wraps(function)
        def call(
            *args: Any, run: Any = None, command: tuple[str, ...] = (), **given: Any
        ) -> Result:
            if run is None or isinstance(run, RunFolder):
                return function(*args, run=run, **given)
            asked = _asked(called, function, args, given)
            path = Path(run)
            new = not (path / "run.json").exists()
            if new and path.exists() and not (path.is_dir() and not any(path.iterdir())):
                raise RunError(f"{str(path)!r} is neither a run nor an empty folder")
            whole = _whole(function, asked)
            folder = RunFolder.create(path, whole) if new else RunFolder.reopen(path)
            try:
                result = function(*args, run=folder, **given)
                return _left(result, folder, asked, command)
            except BaseException:
                if new and not folder.records():
                    shutil.rmtree(path, ignore_errors=True)
                raise

        VERBS.register(called)(Verb(called, call if measures else function, measures))
        return call if measures else function  # type: ignore[return-value]

    return register


def _left(
    result: Result, folder: RunFolder, asked: dict[str, Any], command: tuple[str, ...]
) -> Result:
    """Write the records of a result into a run, each once, and render its report."""
    from purpleteam.report import render

    known, status = {record.id for record in folder.records()}, folder.info["status"]
    fresh: list[Record] = [record for record in result.records if record.id not in known]
    facts = asked | {"records": [record.id for record in result.records]}
    note = Note(name=ASKED, facts=facts)
    made = [replace(record, command=command) for record in (*fresh, note)]
    if note.id not in known:
        depends_on = {"what": asked["verb"], "records": facts["records"]}
        folder.cell(result.stage, depends_on, lambda: made)
        folder.finish("finished" if status == "running" else status)
    render(folder.path)
    return replace(result, run=folder.path)


def _asked(name: str, function: Callable[..., Any], args: Any, given: Any) -> dict[str, Any]:
    """Return the call as plain data, as far as it is: what `purple replay` calls again."""
    bound = inspect.signature(function).bind_partial(*args, **given)
    options: dict[str, Any] = {}
    for key, value in bound.arguments.items():
        if key == "progress" or value is None:
            continue
        plain = _plain(value)
        options[key] = {"given": type(value).__name__} if plain is None else plain
    plugins = list(asked_plugins())
    return {"verb": name, "options": options} | ({"plugins": plugins} if plugins else {})


def _whole(function: Callable[..., Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Return what run.json says of a call: with the dataset and the seed, defaults included."""
    defaults = {
        key: one.default
        for key, one in inspect.signature(function).parameters.items()
        if _plain(one.default) is not None
    }
    options = defaults | asked["options"]
    images = options.get("training_set") or options.get("images")
    facts = {"dataset": images, "seed": options.get("seed"), "threads": options.get("threads")}
    return asked | {key: value for key, value in facts.items() if _plain(value) is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list | tuple) and all(_plain(item) is not None for item in value):
        return [_plain(item) for item in value]
    return None


def new_run(name: str, root: Path = Path("runs")) -> Path:
    """Make and return the next free folder runs/<name>, runs/<name>-2, ...

    Raises:
        UsageError: no folder can be made there.
    """
    number = 1
    while True:
        path = root / (name if number == 1 else f"{name}-{number}")
        try:
            root.mkdir(parents=True, exist_ok=True)
            path.mkdir()
            return path
        except FileExistsError:
            with suppress(OSError):
                if root.is_dir() and not any(path.iterdir()):
                    return path
            if not root.is_dir():
                raise UsageError(
                    f"cannot write {str(path)!r}: {str(root)!r} is no folder"
                ) from None
            number += 1
        except OSError as error:
            raise UsageError(f"cannot write {str(path)!r}: {error.strerror}") from None


def callable_again(facts: Mapping[str, Any]) -> bool:
    """Say whether a call was plain data alone, so that it can be made again."""
    return not any(isinstance(value, Mapping) for value in facts["options"].values())
