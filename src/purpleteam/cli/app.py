"""The commands of `purple`, and how each of them ends."""

import sys
import warnings
from contextlib import suppress
from typing import Annotated, Any

import typer

from purpleteam import __version__
from purpleteam.cli import build, doctor, keys, runs, screen, signing, sweeps
from purpleteam.core.errors import MissingExtra, PurpleError, Refused, UsageError, place_of, unknown
from purpleteam.core.machine import restart
from purpleteam.core.plugins import load_plugin
from purpleteam.verbs import VERBS

SKIN: dict[str, Any] = {
    "cls": build.Verbs,
    "no_args_is_help": True,
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
}
app = typer.Typer(
    name="purple", help="Red- and blue-team an image classifier, and prove what you claim.", **SKIN
)
of_data = typer.Typer(help="Get datasets, and verify them.", **SKIN)
app.add_typer(of_data, name="data")
of_keys = typer.Typer(help="Make, list and revoke API keys of the app.", **SKIN)
app.add_typer(of_keys, name="keys")
USAGE_ERROR = typer.BadParameter.__mro__[2]  # the base of every error of the option parser
STOPPED = 130

LAB = ("torch", "sklearn", "scipy", "onnx", "onnxruntime", "onnxscript", "opacus", "PIL")
SERVE = ("starlette", "uvicorn", "httptools")
EXTRAS = dict.fromkeys(LAB, "lab") | dict.fromkeys(SERVE, "serve")  # what the base does without


@app.callback(invoke_without_command=True)
def _before_the_verb(
    version: bool = typer.Option(False, "--version", is_eager=True, help="Print the version."),
    reproducible: bool = typer.Option(
        False,
        "--reproducible",
        help="Before the verb: same bytes on every x86 processor, at some cost in time.",
    ),
    plugin: Annotated[
        list[str] | None,
        typer.Option("--plugin", help="Module, or an installed plug-in's name, to load."),
    ] = None,
) -> None:
    if reproducible:
        restart()
    if version:
        sys.stdout.write(f"purpleteam {__version__}\n")
        raise typer.Exit


def _add_verbs() -> None:
    """Add every registered verb that is not there yet."""
    known = {command.name for command in app.registered_commands}
    for name, verb in VERBS.items():
        if name not in known:
            build.add(app, name, verb.call, measures=verb.measures)


for command in (
    runs.demo,
    runs.run,
    sweeps.sweep,
    runs.serve,
    runs.report,
    runs.replay,
    doctor.doctor,
):
    build.add(app, command.__name__, command)
build.add(app, "verify", runs.verify)
build.add(app, "keygen", signing.keygen)
build.add(app, "sign", signing.sign)
build.add(app, "bom", signing.bom)
build.add(app, "trace", signing.trace)
build.add(app, "ls", doctor.list_all)
build.add(of_data, "fetch", doctor.fetch)
build.add(of_data, "verify", doctor.verify_data)
build.add(of_keys, "add", keys.add)
build.add(of_keys, "list", keys.list_all)
build.add(of_keys, "revoke", keys.revoke)
_add_verbs()


def main(arguments: list[str] | None = None) -> None:
    """Run `purple`; exit 0 for yes, 1 for an honest no, 2 for usage, input or tool errors."""
    typed = arguments is None
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    if typed and not debug and not sys.warnoptions:
        warnings.simplefilter("ignore")  # what libraries warn of is for those who program
    as_json = "--json" in arguments
    screen.expect_answer()
    try:
        arguments = _load_plugins(arguments)
        code = app(arguments, prog_name="purple", standalone_mode=False)
        screen.write()  # what others left in standard output: help, the version
    except KeyboardInterrupt:
        code = STOPPED
    except (Exception, SystemExit) as error:
        if debug and not isinstance(error, Refused):
            raise
        code = screen.refuse(_told(error), as_json=as_json)
    if code == STOPPED:
        screen.say("stopped; a run goes on with --resume, a sweep as it was typed")
    with suppress(OSError):  # where this fails, it was said
        screen.write()
    sys.exit(code if isinstance(code, int) else 0)


def _load_plugins(arguments: list[str]) -> list[str]:
    """Load what `--plugin` names, and return the other arguments: its verbs must be known first."""
    rest, given = [], iter(arguments)
    for text in given:
        if text != "--plugin" and not text.startswith("--plugin="):
            rest.append(text)
            continue
        name = text.partition("=")[2] or next(given, "")
        if not name:
            raise UsageError("--plugin needs the name of a module")
        load_plugin(name, asked=True)
    if len(rest) < len(arguments):
        _add_verbs()
    return rest


def _told(error: BaseException) -> dict[str, Any]:
    """Return what was raised as `--json` has it: in a line, by whose code, and what to try."""
    kind, text = type(error).__name__, " ".join(str(error).split())[:300]
    facts: dict[str, Any] = {"exit_code": 2}
    package = str(getattr(error, "name", "")).partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and package in EXTRAS:
        error = MissingExtra(package, EXTRAS[package])
    if isinstance(error, PurpleError):
        facts = {"kind": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
        if error.__cause__ is not None:
            facts["whose"], facts["place"] = place_of(error.__cause__)
        return facts
    if isinstance(error, USAGE_ERROR):  # with the value and the choices, where it is silent
        parser: Any = error
        told, reason = parser.format_message(), parser.__cause__
        if kind == "NoSuchOption" and parser.ctx is not None:
            parameters = parser.ctx.command.params
            known = [name for p in parameters for name in p.opts if name[0] == "-"]
            told = unknown("option", parser.option_name, known)
        elif hasattr(reason, "errors"):
            value = reason.errors()[0]["input"]
            told = told.replace("Invalid value for", f"Invalid value {value!r} for", 1)
        return facts | {"kind": "UsageError", "message": told}
    whose, place = place_of(error)
    if isinstance(error, OSError) and error.strerror and whose != "user":
        told = f"{str(error.filename)!r}: {error.strerror}" if error.filename else error.strerror
        return facts | {"kind": kind, "message": told}
    if isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text:
        hint = "there is too little memory; try a smaller --batch-size or --limit"
    elif whose == "user":
        hint = "that code is not Purpleteam's: call it by itself on one small batch"
    elif whose == "purpleteam":
        hint = "this is a defect of Purpleteam: please report it"
    else:
        hint = f"{whose} raised it; if it was in a net of yours, call that by itself on one batch"
    told = f"{kind}: {text} in {place}; {hint} (the traceback comes with --debug)"
    return facts | {"kind": kind, "message": told, "place": place, "whose": whose}
