"""The one exception tree; every message names the thing, the value and the choices.

PurpleError                  exit code 2: usage, unreadable input, tool error
├── UsageError               an option or a name that is not known, a value out of range
├── ConfigError              a configuration file or `--set` that cannot be read
├── DataError                a dataset that is missing, damaged or not what it says
├── ModelError               a model that cannot be found, loaded or called
├── RunError                 a run folder that is missing, damaged or in use
├── MissingExtra             an optional part that is not installed
└── Refused                  exit code 1: the honest answer is no
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ConfigError",
    "DataError",
    "MissingExtra",
    "ModelError",
    "PurpleError",
    "Refused",
    "RunError",
    "UsageError",
    "unknown",
]


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


class MissingExtra(PurpleError):
    """An optional part that is not installed; the message holds the command."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed; try: pip install 'purpleteam[{extra}]'")


class Refused(PurpleError):
    """The input was understood and the honest answer is no."""

    exit_code = 1


def unknown(kind: str, value: object, choices: Iterable[str]) -> str:
    """Return the message for an unknown name: the value, the nearest choice, all choices."""
    known = sorted(choices)
    near = difflib.get_close_matches(str(value), known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {kind} {str(value)!r}{hint}; known: {', '.join(known)}"
