"""The verbs of `purple`, in the order of the flow, and how every command ends."""

from __future__ import annotations

import sys

import typer

from purpleteam import __version__
from purpleteam.cli.commands import attacks, data, defences, inspect, models, runs, serve
from purpleteam.cli.screen import say
from purpleteam.core.errors import PurpleError, Refused

__all__ = ["app", "main"]

app = typer.Typer(
    name="purple",
    help="Red- and blue-team an image classifier, and prove what you claim.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
USAGE_ERROR = typer.BadParameter.__mro__[2]  # the base of every error of the option parser
STOPPED = 130


@app.callback(invoke_without_command=True)
def _version(
    version: bool = typer.Option(False, "--version", is_eager=True, help="Print the version."),
) -> None:
    if version:
        sys.stdout.write(f"purpleteam {__version__}\n")
        raise typer.Exit


for room in (runs, data, models, attacks, defences, inspect, serve):
    room.add_to(app)


def main(arguments: list[str] | None = None) -> None:
    """Run `purple`; exit 0 for yes, 1 for an honest no, 2 for usage, input or tool errors."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    try:
        code = app(arguments, standalone_mode=False)
    except PurpleError as error:
        if debug and not isinstance(error, Refused):
            raise
        say(f"error: {' '.join(str(error).split())}")
        code = error.exit_code
    except KeyboardInterrupt:
        say("stopped; a run goes on where it was with --resume")
        code = STOPPED
    except BrokenPipeError:
        code = 0
    except Exception as error:
        if debug:
            raise
        code = 2
        say(f"error: {_one_line(error)}")
    sys.exit(code if isinstance(code, int) else 0)


def _one_line(error: Exception) -> str:
    if isinstance(error, USAGE_ERROR):
        return " ".join(error.format_message().split())  # type: ignore[attr-defined]
    if isinstance(error, OSError) and error.filename:
        return f"{str(error.filename)!r}: {error.strerror}"
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text} (the traceback comes with --debug)"
