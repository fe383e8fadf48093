"""A command's options are made from the annotations of its function's parameters."""

import inspect
import json
import re
import sys
import typing
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from purpleteam.cli import screen
from purpleteam.core.address import without_secrets
from purpleteam.core.config import number
from purpleteam.core.errors import ConfigError, PurpleError, UsageError, unknown
from purpleteam.verbs import gate
from purpleteam.verbs.outputs import file_to_write
from purpleteam.verbs.result import Result
from purpleteam.verbs.verb import IMAGES, Option, new_run, option_of

FLOW = (
    *("demo", "run", "sweep", "data", "train", "evaluate", "poison", "attack", "harden", "detect"),
    *("repair", "certify", "privacy", "import", "export", "scan", "threats", "serve", "keys"),
    *("report", "replay", "bom", "keygen", "sign", "verify", "trace", "ls", "doctor"),
)
"""The verbs as `purple --help` lists them; others follow."""
GATES = {
    "run": Option(kind=Path, help="Run folder to add the records to; a new one by default."),
    "required": Option(
        name="--require",
        kind=list[str],
        help="Such as robust_accuracy>=0.8; else exit 1. Repeatable.",
    ),
    "junit": Option(kind=Path, help="JUnit file for build servers."),
    "sarif": Option(kind=Path, help="SARIF file for code hosts."),
}
"""What every verb that measures takes beside its own options."""
READING = {
    "resize": Option(help="Size of all images of a folder: 32, or 32x48 (HxW)."),
    "label_file": Option(name="--labels", help="File of file,label for a folder of images."),
    "skip_unreadable": Option(kind=bool, help="Leave out images that cannot be read."),
}
"""How the images of `--dataset` or `--training-set` are read."""
ENDS = {
    "as_json": Option(kind=bool, name="--json", help="Print one JSON object on standard output."),
    "quiet": Option(kind=bool, help="Show no progress."),
    "debug": Option(kind=bool, help="Show the traceback of an error."),
}


class Verbs(TyperGroup):
    """A group of commands in the order of the flow; an unknown one is told which there are."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: FLOW.index(name) if name in FLOW else len(FLOW))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise UsageError(unknown("verb", args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)


@dataclass(frozen=True)
class How:
    """How a command was typed."""

    as_json: bool
    quiet: bool
    debug: bool

    @property
    def typed(self) -> tuple[str, ...]:
        """The command line, without the secrets of an address."""
        return ("purple", *map(without_secrets, sys.argv[1:]))


@dataclass(frozen=True, kw_only=True, repr=False)
class Answer(Result):
    """What a command says that measures nothing."""

    values: dict[str, Any]
    shown: list[str]
    exit_code: int = 0

    def answer(self) -> dict[str, Any]:
        return self.values

    def text(self) -> list[str]:
        return self.shown


def add(
    app: typer.Typer, name: str, call: Callable[..., Result | None], *, measures: bool = False
) -> None:
    """Add a command that parses, calls, shows and gates; None is answered by the call itself.

    An option is a parameter with an `Option`, or with a string alone: its help. Parameters called
    `progress` and `how` are filled in.
    """
    takes = inspect.signature(call).parameters
    hints = typing.get_type_hints(call, include_extras=True)
    own = {key: option for key in takes if (option := option_of(hints.get(key)))}
    shared = READING if any(key in takes for key in IMAGES) else {}
    if measures:
        names = [_called(*pair) for pair in own.items()]
        shared = {
            key: option for key, option in GATES.items() if _called(key, option) not in names
        } | shared

    def command(**given: Any) -> None:
        how = How(*(given.pop(key) for key in ENDS))
        gates = {key: given.pop(key, None) for key in GATES if key in shared}
        _put_reading(given)
        requirements = [gate.parse_requirement(text) for text in gates.get("required") or ()]
        for_builds, for_hosts = (file_to_write(gates.get(key)) for key in ("junit", "sarif"))
        if measures:
            given |= {"run": gates.get("run") or new_run(name), "command": how.typed}
        with screen.progress(how.quiet or how.as_json or "progress" not in takes) as bar:
            filled = {"progress": bar, "how": how}
            result = call(**given, **{key: filled[key] for key in filled if key in takes})
        if result is None:
            return
        verdicts = gate.require(requirements, result.records)
        if for_builds:
            for_builds.write_text(gate.junit(name, result, verdicts), encoding="utf-8")
        if for_hosts:
            for_hosts.write_text(gate.sarif(result, verdicts), encoding="utf-8")
        values, lines = result.answer(), result.text()
        if verdicts:
            values["required"] = [asdict(verdict) for verdict in verdicts]
        for verdict in verdicts:
            word = "reached" if verdict.passed else "NOT REACHED"
            lines.append(f"{word}: {verdict.require}: {verdict.message}")
        screen.answer(values, lines, as_json=how.as_json)
        if problem := getattr(result, "problem", None):
            raise PurpleError(problem)
        if code := result.exit_code or int(not all(verdict.passed for verdict in verdicts)):
            raise typer.Exit(code)

    parameters = [_parameter(key, option, takes[key].default) for key, option in own.items()]
    for key, option in (shared | ENDS).items():
        parameters.append(_parameter(key, option, False if option.kind is bool else None))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    text = re.split(r"\n\n(?:Args|Raises|Returns):", inspect.getdoc(call) or "")[0]
    app.command(name, help=text)(screen.only_answers()(command))


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


def _called(key: str, option: Option) -> str:
    return option.name or "--" + key.replace("_", "-")


def _parameter(key: str, option: Option, default: Any) -> inspect.Parameter:
    """Return a parameter as typer takes it."""
    kind, called, facts = option.kind or str, _called(key, option), dict[str, Any](help=option.help)
    if kind in (float, list[float]):
        facts |= {"parser": _number, "metavar": "<number>"}
    if option.least is not None or option.most is not None:
        facts |= {"min": option.least, "max": option.most}
    if called.startswith("-"):
        info: Any = typer.Option(called, **facts)
    else:
        info = typer.Argument(metavar=called, **facts)
    return inspect.Parameter(
        key,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind | None if default is None else kind, info],
    )


def _number(text: str | float) -> float:
    """Return the number that a text means: a decimal, or a fraction such as 8/255."""
    try:
        return number(str(text))  # a default comes as the number that it is
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
