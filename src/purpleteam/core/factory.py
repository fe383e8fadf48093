"""`module:factory`: the user's own code, on the Python path or in the current folder."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from pathlib import Path

from purpleteam.core.errors import PurpleError

__all__ = ["call_factory", "is_factory"]


def is_factory(reference: str) -> bool:
    """Say whether a reference has the form `module:factory`."""
    module_name, separator, factory_name = reference.partition(":")
    dotted = all(part.isidentifier() for part in module_name.split("."))
    return bool(separator) and dotted and factory_name.isidentifier()


def call_factory(reference: str, error: type[PurpleError]) -> object:
    """Import `module:factory`, call it without arguments and return what it returns.

    Args:
        reference: `module:factory`, looked up on the Python path and in the current folder.
        error: what is raised, in one line, where that cannot be done.
    """
    module_name, _, factory_name = reference.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    with contextlib.redirect_stdout(sys.stderr):  # standard output is for the answer
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as problem:  # whatever the user's file does when imported
            raise error(
                f"{reference!r}: module {module_name!r} cannot be imported: {_one_line(problem)}"
            ) from None
        factory = getattr(module, factory_name, None)
        if factory is None:
            raise error(f"{reference!r}: module {module_name!r} has no {factory_name!r}")
        try:
            return factory()
        except (Exception, SystemExit) as problem:
            raise error(
                f"{reference!r}{_signature(factory)} failed when called without arguments: "
                f"{_one_line(problem)}"
            ) from None


def _signature(factory: object) -> str:
    try:
        return str(inspect.signature(factory))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # no function, or one that does not tell
        return ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
