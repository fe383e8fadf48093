"""The verbs of `purple`, in the order of the flow, and how every command ends."""

from __future__ import annotations

import sys
from typing import Any

import typer

from purpleteam import __version__
from purpleteam.cli.commands import (
    attacks,
    certify,
    data,
    defences,
    detect,
    inspect,
    models,
    poison,
    repair,
    runs,
    serve,
)
from purpleteam.cli.screen import say
from purpleteam.cli.verbs import Verbs
from purpleteam.core.errors import MissingExtra, PurpleError, Refused, unknown

__all__ = ["app", "main"]

app = typer.Typer(
    name="purple",
    cls=Verbs,
    help="Red- and blue-team an image classifier, and prove what you claim.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
USAGE_ERROR = typer.BadParameter.__mro__[2]  # the base of every error of the option parser
STOPPED = 130

LAB = ("torch", "sklearn", "scipy", "onnx", "onnxruntime", "onnxscript", "opacus", "PIL")
SERVE = ("starlette", "uvicorn", "httptools")
EXTRAS = dict.fromkeys(LAB, "lab") | dict.fromkeys(SERVE, "serve")
"""Which extra brings a package that the base install does without."""


@app.callback(invoke_without_command=True)
def _version(
    version: bool = typer.Option(False, "--version", is_eager=True, help="Print the version."),
) -> None:
    if version:
        sys.stdout.write(f"purpleteam {__version__}\n")
        raise typer.Exit


ROOMS = (runs, data, models, poison, attacks, certify, defences, detect, repair, inspect, serve)
for room in ROOMS:
    room.add_to(app)


def main(arguments: list[str] | None = None) -> None:
    """Run `purple`; exit 0 for yes, 1 for an honest no, 2 for usage, input or tool errors."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    try:
        code = app(arguments, prog_name="purple", standalone_mode=False)
    except PurpleError as error:
        if debug and not isinstance(error, Refused):
            raise
        code = _refuse(str(error), error.exit_code)
    except KeyboardInterrupt:
        code = STOPPED
    except Exception as error:
        if debug:
            raise
        code = _refuse(_one_line(error), 2)
    if code == STOPPED:
        say("stopped; a run goes on where it was with --resume")
    sys.exit(code if isinstance(code, int) else 0)


def _refuse(text: str, code: int) -> int:
    say(text if text.startswith("Usage:") else f"error: {' '.join(text.split())}")
    return code


def _one_line(error: Exception) -> str:
    if isinstance(error, USAGE_ERROR):
        return _usage(error)
    if isinstance(error, ModuleNotFoundError) and (extra := EXTRAS.get(_package(error))):
        return str(MissingExtra(_package(error), extra))
    if isinstance(error, OSError) and error.strerror:
        return f"{str(error.filename)!r}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text} (the traceback comes with --debug)"


def _usage(error: Any) -> str:
    """Return what the option parser says, with the value and the choices where it is silent."""
    text: str = error.format_message()
    context, reason = getattr(error, "ctx", None), error.__cause__
    if type(error).__name__ == "NoSuchOption" and context is not None:
        known = [name for one in context.command.params for name in one.opts if name[0] == "-"]
        return unknown("option", error.option_name, known)
    if hasattr(reason, "errors"):
        value = reason.errors()[0]["input"]
        return text.replace("Invalid value for", f"Invalid value {value!r} for", 1)
    return text


def _package(error: ModuleNotFoundError) -> str:
    return str(error.name).partition(".")[0]
