"""A command for each verb: its options are made from the verb's own parameters."""

from __future__ import annotations

import inspect
import json
import re
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from purpleteam.cli.options import Debug, Json, Quiet
from purpleteam.cli.screen import answer, only_answers, progress
from purpleteam.core.config import number
from purpleteam.core.errors import ConfigError, PurpleError, UsageError
from purpleteam.verbs import VERBS
from purpleteam.verbs.gate import Verdict, junit, parse_requirement, require, sarif
from purpleteam.verbs.outputs import file_to_write
from purpleteam.verbs.result import Result
from purpleteam.verbs.verb import Option, Verb, new_run

READING = {
    "resize": Annotated[
        str | None,
        typer.Option("--resize", help="Size of all images of a folder: 32, or 32x48 (HxW)."),
    ],
    "label_file": Annotated[
        str | None, typer.Option("--labels", help="File of file,label for a folder of images.")
    ],
    "skip_unreadable": Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out images that cannot be read.")
    ],
}
"""How the images of `--dataset` or `--training-set` are read."""
GATES = {
    "run": Annotated[
        Path | None,
        typer.Option("--run", help="Run folder to add the records to; a new one by default."),
    ],
    "required": Annotated[
        list[str] | None,
        typer.Option("--require", help="Such as robust_accuracy>=0.8; else exit 1. Repeatable."),
    ],
    "junit": Annotated[Path | None, typer.Option("--junit", help="JUnit file for build servers.")],
    "sarif": Annotated[Path | None, typer.Option("--sarif", help="SARIF file for code hosts.")],
}
"""What every verb that measures takes beside its own options."""
ENDS = {"as_json": Json, "quiet": Quiet, "debug": Debug}
IMAGES = ("training_set", "images")
"""Parameters that name a dataset, the first that is given goes before."""


def add_verbs(app: typer.Typer) -> None:
    """Add every registered verb that the app does not have yet."""
    known = {command.name for command in app.registered_commands}
    for name, verb in VERBS.items():
        if name not in known:
            app.command(name, help=_help(verb))(only_answers(command_of(verb)))


def command_of(verb: Verb) -> Callable[..., None]:
    """Return what the command line calls for a verb: parse, call, show, gate."""
    own = _own_parameters(verb.call)
    takes = inspect.signature(verb.call).parameters
    shared: dict[str, Any] = {**ENDS}
    if any(name in takes for name in IMAGES):
        shared = READING | shared
    if verb.measures:
        taken = {_option_of(one.annotation) for one in own}
        free = {key: kind for key, kind in GATES.items() if _option_of(kind) not in taken}
        shared = free | shared

    def run_verb(**given: Any) -> None:
        as_json, quiet, _ = (given.pop(key) for key in ENDS)
        gates = {key: given.pop(key, None) for key in GATES}
        _put_reading(given)
        requirements = [parse_requirement(text) for text in gates["required"] or ()]
        files = [file_to_write(gates[key]) for key in ("junit", "sarif")]
        more: dict[str, Any] = {}
        if verb.measures:
            more = {"run": gates["run"] or new_run(verb.called), "command": _typed()}
        with progress(quiet or as_json) as bar:
            if "progress" in takes:
                more["progress"] = bar
            result = verb.call(**given, **more)
        verdicts = require(requirements, result.records)
        texts = (junit(verb.called, result, verdicts), sarif(result, verdicts))
        for path, text in zip(files, texts, strict=True):
            if path is not None:
                path.write_text(text, encoding="utf-8")
        _show(result, verdicts, as_json)

    parameters = [*own, *(_parameter(name, kind) for name, kind in shared.items())]
    run_verb.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run_verb.__annotations__ = {one.name: one.annotation for one in parameters}
    return run_verb


def _help(verb: Verb) -> str:
    """Return what a verb's docstring says before its parameters."""
    return re.split(r"\n\n(?:Args|Raises|Returns):", inspect.getdoc(verb.call) or "")[0]


def _show(result: Result, verdicts: list[Verdict], as_json: bool) -> None:
    """Print the answer, and end with the code that it means."""
    values, lines = result.answer(), result.text()
    if verdicts:
        values["required"] = [verdict.to_json() for verdict in verdicts]
        for verdict in verdicts:
            word = "reached" if verdict.passed else "NOT REACHED"
            lines.append(f"{word}: {verdict.requirement.text}: {verdict.message}")
    answer(values, lines, as_json=as_json)
    if problem := getattr(result, "problem", None):
        raise PurpleError(problem)
    code = result.exit_code or int(not all(verdict.passed for verdict in verdicts))
    if code:
        raise typer.Exit(code)


def _typed() -> tuple[str, ...]:
    """Return the command line that was typed, without the secrets of an address."""
    from purpleteam.core.address import without_secrets

    return ("purple", *map(without_secrets, sys.argv[1:]))


def _put_reading(given: dict[str, Any]) -> None:
    """Put how image files are read behind the dataset's name.

    `--dataset my_images --resize 32` is `--dataset my_images:resize=32`, in records too.
    """
    told = {"resize": given.pop("resize", None), "labels": given.pop("label_file", None)}
    told["skip_unreadable"] = given.pop("skip_unreadable", None) or None
    fields = [f"{key}={json.dumps(value)}" for key, value in told.items() if value is not None]
    if not fields:
        return
    key = next((name for name in IMAGES if given.get(name) is not None), None)
    if key is None:
        raise UsageError(f"--{fields[0].partition('=')[0]} goes with --dataset FOLDER")
    given[key] = f"{given[key]}:{','.join(fields)}"


def _own_parameters(call: Callable[..., Result]) -> list[inspect.Parameter]:
    """Return the parameters that a verb asks for on the command line, as typer takes them."""
    hints = typing.get_type_hints(call, include_extras=True)
    found = []
    for name, one in inspect.signature(call).parameters.items():
        facts = getattr(hints.get(name), "__metadata__", ())
        found += [_asked_for(name, o, one.default) for o in facts if isinstance(o, Option)]
    return found


def _asked_for(name: str, option: Option, default: Any) -> inspect.Parameter:
    called = option.name or "--" + name.replace("_", "-")
    kind, facts = option.kind, dict[str, Any](help=option.help)
    if kind in (float, list[float]):
        facts |= {"parser": number_of, "metavar": "<number>"}
    if option.least is not None or option.most is not None:
        facts |= {"min": option.least, "max": option.most}
    if default is None:
        kind = kind | None
    if called.startswith("-"):
        info: Any = typer.Option(called, **facts)
    else:
        info = typer.Argument(metavar=called, **facts)
    required = default is inspect.Parameter.empty
    return _parameter(name, Annotated[kind, info], ... if required else default)


def _parameter(name: str, kind: Any, default: Any = None) -> inspect.Parameter:
    if default is None and kind.__origin__ is bool:
        default = False
    given = {} if default is ... else {"default": default}
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, **given)


def _option_of(kind: Any) -> str:
    """Return the name of the option, such as --run, that an annotation stands for."""
    info = kind.__metadata__[0]
    return str(info.param_decls[0] if info.param_decls else info.default)


def number_of(text: str | float) -> float:
    """Return the number that a text means: a decimal, or a fraction such as 8/255."""
    try:
        return number(str(text))  # a default comes as the number that it is
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
