"""What makes a function a verb: its options, its place in VERBS, and the run that it leaves.

Parameters annotated with an `Option` are asked for on the command line, the others are for Python
alone. Keys of a TypedDict of `options` are parameters too: `**given: Unpack[Doing]`.
"""

import functools
import itertools
import shutil
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from inspect import Parameter, Signature, signature
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar

from purpleteam.core.address import without_secrets
from purpleteam.core.errors import RunError, UsageError
from purpleteam.core.plugins import asked_plugins
from purpleteam.core.progress import SILENT
from purpleteam.core.records import Note
from purpleteam.core.registry import Registry
from purpleteam.core.runfolder import RunFolder
from purpleteam.verbs.outputs import file_to_write, write_answer
from purpleteam.verbs.result import Result

V = TypeVar("V", bound=Callable[..., Result])
ASKED = "asked"  # name of the note that says which call of a verb made the records before it
DEFAULTS: dict[str, Any] = {"seed": 0, "device": "auto", "progress": SILENT}
"""Of the keys that verbs share; None of the others."""
IMAGES = ("training_set", "images")
"""Parameters that name a dataset: the first that is given is used, others are not."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """How a parameter is asked for on the command line; a string alone is its help."""

    help: str
    kind: Any = None
    """What the text becomes: str, int, float (8/255 too), bool, Path, or a list of one of them; by
    default what the parameter is annotated with, and text for anything."""
    name: str | None = None
    """Such as `--epsilon`; by default the parameter's own. A name without dashes is an argument."""
    least: int | None = None
    most: int | None = None


def option_of(annotation: Any) -> Option | None:
    """Return how a parameter is asked for; None of one that is for Python alone."""
    for told in getattr(annotation, "__metadata__", ()):
        option = Option(help=told) if isinstance(told, str) else told
        if isinstance(option, Option):
            hint = annotation.__origin__
            kinds = [kind for kind in typing.get_args(hint) if kind is not NoneType]
            own = kinds[0] if isinstance(hint, UnionType) else str if hint is Any else hint
            return replace(option, kind=option.kind or own)
    return None


class Checked(BaseException):
    """A verb came to its images and had nothing against its options; no error."""


UNREAD = object()
"""Stands for images that are not read: where a verb would open them it raises `Checked`."""


@dataclass(frozen=True)
class Verb:
    """A registered verb."""

    call: Callable[..., Result]
    measures: bool  # whether it leaves records, and so a run, and can gate


VERBS: Registry[Verb] = Registry("verb")


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Have a verb look at its options, as far as it does before it reads anything.

    Raises:
        PurpleError: one of them can never work, or not with another.
        TypeError: one is missing.
    """
    unread = {
        key: UNREAD for key in ("images", "training_set") if key == "images" or key in options
    }
    with suppress(Checked):
        VERBS[name].call(**{**options, **unread})


def verb(
    name: str | None = None, *, measures: bool = True, answers: bool = False
) -> Callable[[V], V]:
    """Register a function as a verb. One that measures also takes `run` and `command`.

    `run` is where its records go: a run, or a folder that is empty or not there yet; None keeps
    them in the result alone. A `RunFolder` is only written files into: its owner keeps the records.
    `answers`: what is printed by --json also goes into the file `out`.
    """

    def register(function: V) -> V:
        called, takes = name or function.__name__, _expanded(function)
        shared = takes.parameters.keys() - signature(function).parameters.keys()
        defaults = {key: takes.parameters[key].default for key in shared}

        @functools.wraps(function)
        def call(*args: Any, command: tuple[str, ...] = (), **given: Any) -> Result:
            takes.bind(*args, **given)  # `Unpack` alone would swallow a mistyped name
            target = file_to_write(given.get("out")) if answers else None

            def answered(**more: Any) -> Result:
                result = function(*args, **(defaults | given | more))
                if target is not None:
                    write_answer(target, result.answer())
                return result

            if given.get("run") is None or isinstance(given["run"], RunFolder):
                return answered()
            path = Path(given.pop("run"))
            asked = _asked(called, takes, args, given)
            new = not (path / "run.json").exists()
            if new and path.exists() and not (path.is_dir() and not any(path.iterdir())):
                raise RunError(f"{str(path)!r} is neither a run nor an empty folder")
            described = _described(takes, asked)
            folder = RunFolder.create(path, described) if new else RunFolder.reopen(path)
            try:
                return _left(answered(run=folder), folder, asked, command)
            except BaseException:
                if new and not folder.records():
                    shutil.rmtree(path, ignore_errors=True)
                raise

        call.__signature__ = takes  # type: ignore[attr-defined]
        call.__annotations__ = {key: p.annotation for key, p in takes.parameters.items()}
        VERBS.register(called)(Verb(call, measures))
        return call  # type: ignore[return-value]

    return register


def _expanded(function: Callable[..., Result]) -> Signature:
    """Return what a verb takes, the keys of its `Unpack`ed TypedDict one by one."""
    hints = typing.get_type_hints(function, include_extras=True)
    own: list[Parameter] = []
    for parameter in signature(function).parameters.values():
        if parameter.kind is not Parameter.VAR_KEYWORD:
            own.append(parameter.replace(annotation=hints.get(parameter.name, Any)))
            continue
        (options,) = typing.get_args(hints[parameter.name])
        for key, annotation in typing.get_type_hints(options, include_extras=True).items():
            facts: Any = {"default": DEFAULTS.get(key), "annotation": annotation}
            own.append(Parameter(key, Parameter.KEYWORD_ONLY, **facts))
    return Signature(own, return_annotation=hints["return"])


def _left(
    result: Result, folder: RunFolder, asked: dict[str, Any], command: tuple[str, ...]
) -> Result:
    """Write the records of a result into a run, each once, and render its report."""
    from purpleteam.report import render

    known, status = {record.id for record in folder.records()}, folder.info["status"]
    facts = asked | {"records": [record.id for record in result.records]}
    note = Note(name=ASKED, facts=facts)
    if note.id not in known:
        fresh = [*(record for record in result.records if record.id not in known), note]
        made = [replace(record, command=command) for record in fresh]
        depends_on = {"what": asked["verb"], "records": facts["records"]}
        folder.cell(result.stage, depends_on, lambda: made)
        folder.finish("finished" if status == "running" else status)
    render(folder.path)
    return replace(result, run=folder.path)


def _asked(name: str, takes: Signature, args: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the call as plain data, as far as it is: what `purple replay` calls again."""
    options: dict[str, Any] = {}
    bound = takes.bind_partial(*args, **given).arguments
    unused = [key for key in IMAGES if bound.get(key) is not None][1:]
    for key, value in bound.items():
        if key not in ("progress", *unused) and value is not None:
            plain = _plain(value)
            options[key] = {"given": type(value).__name__} if plain is None else plain
    plugins = list(asked_plugins())
    return {"verb": name, "options": options} | ({"plugins": plugins} if plugins else {})


def _described(takes: Signature, asked: dict[str, Any]) -> dict[str, Any]:
    """Return what run.json says of a call: with the dataset and the seed, defaults included."""
    options = {key: parameter.default for key, parameter in takes.parameters.items()}
    options |= asked["options"]
    facts = {key: options.get(key) for key in ("seed", "threads")}
    facts["dataset"] = next((options[key] for key in IMAGES if options.get(key)), None)
    return asked | {key: value for key, value in facts.items() if _plain(value) is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, int | float | bool):
        return value
    if isinstance(value, list | tuple) and all(_plain(item) is not None for item in value):
        return [_plain(item) for item in value]
    return None


def new_run(name: str, root: Path = Path("runs")) -> Path:
    """Make and return the next free folder runs/<name>, runs/<name>-2, ..."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            path = root / (name if number == 1 else f"{name}-{number}")
            with suppress(FileExistsError):
                path.mkdir()
            if path.is_dir() and not any(path.iterdir()):
                break
    except OSError as error:
        is_file = isinstance(error, FileExistsError)
        reason = f"{str(root)!r} is no folder" if is_file else error.strerror
        raise UsageError(f"cannot write {str(root / name)!r}: {reason}") from None
    return path
