"""The one exception tree; every message names the thing, the value and the choices.

PurpleError                  exit code 2: usage, unreadable input, tool error
├── UsageError               an option or a name that is not known, a value out of range
├── ConfigError              a configuration file or `--set` that cannot be read
├── DataError                a dataset that is missing, damaged or not what it says
├── ModelError               a model that cannot be found, loaded or called
├── RunError                 a run folder that is missing, damaged or in use
│   └── NeedsFailed          work that needs other work of the run, which failed
├── MissingExtra             an optional part that is not installed
├── Absent                   what a check would look at is not there: it is skipped
└── Refused                  exit code 1: the honest answer is no
"""

import difflib
import errno
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class PurpleError(Exception):
    """Anything that Purpleteam says no to, in one line."""

    exit_code = 2


class UsageError(PurpleError):
    """An option or a name that is not known, or a value out of its range."""


class ConfigError(PurpleError):
    """A configuration that cannot be read or holds an unknown key."""


class DataError(PurpleError):
    """A dataset that is missing, damaged or not what it says it is."""


class ModelError(PurpleError):
    """A model that cannot be found, loaded or called."""


class RunError(PurpleError):
    """A run folder that is missing, damaged or asked for something else."""


class NeedsFailed(RunError):
    """Work that cannot be done, since it needs other work of the same run, which failed."""

    def __init__(self, needs: str) -> None:
        super().__init__(f"needs {needs!r}, which failed")
        self.needs = needs


class MissingExtra(PurpleError):
    """An optional part that is not installed; the message holds the command."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed; try: pip install 'purpleteam[{extra}]'")


class Absent(PurpleError):
    """What a check would look at is not there: it is skipped, and the message says why."""


class Refused(PurpleError):
    """The input was understood and the honest answer is no."""

    exit_code = 1


def unknown(kind: str, value: object, choices: Iterable[str]) -> str:
    """Return the message for an unknown name: the value, the nearest choice, all choices."""
    known = sorted(choices)
    near = difflib.get_close_matches(str(value), known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {kind} {str(value)!r}{hint}; known: {', '.join(known)}"


def reason_of(error: BaseException, most: int = 200) -> str:
    """Return what an error says, in one line of at most `most` characters."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def place_of(error: BaseException) -> tuple[str, str]:
    """Return whose code raised an error, `user`, `purpleteam` or a library, and where that was.

    Where the user's code called a library that raised it, it is the user's; the place is the
    innermost line of code that is the user's, else of Purpleteam's: `net.py, line 4 (forward)`.
    """
    package = Path(__file__).parent.parent
    libraries = [sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")]
    frames: list[tuple[str, str]] = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(package):
            whose, path = "purpleteam", path.relative_to(package.parent)
        elif root := next((library for library in libraries if path.is_relative_to(library)), None):
            whose = path.relative_to(root).parts[0]
        elif not path.is_absolute():  # <frozen importlib>, <string>
            whose = path.name
        else:
            whose = "user"
            path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        frames.append((whose, f"{path}, line {line} ({frame.f_code.co_name})"))
    for wanted in ("user", "purpleteam"):
        if place := next((place for whose, place in reversed(frames) if whose == wanted), ""):
            return (wanted if wanted == "user" else frames[-1][0]), place
    return (frames[-1][0] if frames else "purpleteam"), ""


def failure_of(error: BaseException) -> str:
    """Return in one line what went wrong, and where it was nobody's refusal."""
    text = reason_of(error, 300)
    if isinstance(error, PurpleError):
        return text
    return f"{type(error).__name__}: {text} in {place_of(error)[1] or 'a library'}"


def disk_is_full(error: BaseException | None) -> bool:
    """Say whether an error, or what it was raised from, is that nothing more can be written."""
    while error is not None:
        full = isinstance(error, OSError) and error.errno in FULL_DISK
        if full or "No space left on device" in str(error):  # as safetensors and torch pass it on
            return True
        error = error.__cause__ or error.__context__
    return False
