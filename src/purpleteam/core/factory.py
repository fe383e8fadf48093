"""`module:factory` and `path/to/module.py:factory`: the user's own code.

A module is looked up on the Python path and in the current folder; a file is loaded as it lies,
and what lies beside it can be imported while it is loaded and called. What goes wrong in there is
told in one line: whose code it was, in which file and line, and what to try.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import PurpleError, place_of

_CALLED: dict[str, str] = {}
"""By how a card names it: what the user named in this process, and was called."""


def is_factory(reference: str) -> bool:
    """Say whether a reference has the form `module:factory` or `path/to/module.py:factory`."""
    module, separator, factory = reference.rpartition(":")
    dotted = all(part.isidentifier() for part in module.split("."))
    return bool(separator) and factory.isidentifier() and (dotted or _is_path(module))


def file_of(reference: str) -> Path | None:
    """Return the file that a reference names; None for a dotted module."""
    module = reference.rpartition(":")[0]
    if not _is_path(module):
        return None
    return Path(module if module.endswith(".py") else f"{module}.py")


def portable(reference: str) -> str:
    """Return a reference as a card may say it: a file within the current folder, or its name."""
    file = file_of(reference)
    if file is None:
        return reference
    whole, here = file.expanduser().resolve(), Path.cwd().resolve()
    inside = whole.relative_to(here) if whole.is_relative_to(here) else Path(whole.name)
    return f"{inside.as_posix()}:{reference.rpartition(':')[2]}"


def called_as(architecture: str) -> str | None:
    """Return what the user named in this process, and a card names as `architecture`."""
    return _CALLED.get(architecture)


def call_factory(
    reference: str,
    error: type[PurpleError],
    is_ready: Callable[[object], bool] = lambda _: False,
) -> object:
    """Import the module, call the factory without arguments and return what it returns.

    Args:
        reference: `module:factory` or `path/to/module.py:factory`.
        error: what is raised, in one line, where that cannot be done.
        is_ready: says of what the name stands for whether it is no factory, but what is wanted
            itself; a copy of it is returned.
    """
    name, _, factory_name = reference.rpartition(":")
    with contextlib.redirect_stdout(sys.stderr), _importable(reference):
        try:  # standard output is for the answer
            module = _module(reference, error)
        except PurpleError:
            raise
        except (Exception, SystemExit) as problem:  # whatever the user's file does when imported
            raise error(
                f"{reference!r}: module {name!r} cannot be imported: {_what(problem)}; "
                f"{_remedy(problem, reference)}"
            ) from None
        factory = getattr(module, factory_name, None)
        if factory is None:
            own = [one for one in vars(module) if not one.startswith("_")]
            raise error(
                f"{reference!r}: module {name!r} has no {factory_name!r}; "
                f"it has {', '.join(own[-8:]) or 'nothing'}"
            )
        try:
            made: object = copy.deepcopy(factory) if is_ready(factory) else factory()
        except (Exception, SystemExit) as problem:
            raise error(
                f"{reference!r}{_signature(factory)} failed when called without arguments: "
                f"{_what(problem)}; it is code of yours: {_call(factory, factory_name)}"
            ) from None
    _CALLED[portable(reference)] = reference
    return made


def _is_path(module: str) -> bool:
    slashes = "/" in module or "\\" in module
    return "://" not in module and (module.endswith(".py") or slashes) and Path(module).stem != ""


@contextlib.contextmanager
def _importable(reference: str) -> Iterator[None]:
    """Let a file import what lies beside it, and a module what lies in the current folder."""
    file = file_of(reference)
    if file is None:
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.insert(0, here)
        yield
        return
    beside = str(_root(file.expanduser().resolve()))
    sys.path.insert(0, beside)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the user's own code may have taken it out
            sys.path.remove(beside)


def _root(file: Path) -> Path:
    """Return the folder from which a file can be imported: above the packages that it lies in."""
    folder = file.parent
    while (folder / "__init__.py").is_file() and folder.parent != folder:
        folder = folder.parent
    return folder


def _module(reference: str, error: type[PurpleError]) -> ModuleType:
    file = file_of(reference)
    if file is None:
        return importlib.import_module(reference.rpartition(":")[0])
    whole = file.expanduser().resolve()
    if not whole.is_file():
        raise error(f"{reference!r}: there is no file {str(file)!r}")
    parts = whole.relative_to(_root(whole)).with_suffix("").parts
    if len(parts) > 1:  # of a package: it may import from `.`
        return importlib.import_module(".".join(parts))
    # A name of its own: a file may be called as a module that others import, `test` or `types`.
    name = f"{whole.stem}_{sha256_bytes(str(whole).encode())[7:15]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, whole)
    if spec is None or spec.loader is None:
        raise error(f"{reference!r}: {str(file)!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _signature(factory: object) -> str:
    try:
        return str(inspect.signature(factory))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # no function, or one that does not tell
        return ""


def _call(factory: object, name: str) -> str:
    """Return what to try where a factory failed."""
    try:
        inspect.signature(factory).bind()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return f"name a function that takes none, such as def build(): return {name}(...)"
    return f"try {name}() by itself, and see that it returns what is wanted"


def _what(problem: BaseException) -> str:
    """Return in one line what went wrong, and where in other people's code."""
    text = " ".join(str(problem).split())[:300] or type(problem).__name__
    whose, place = place_of(problem)
    if whose == "purpleteam" or isinstance(problem, SyntaxError):  # its text says the line already
        return text
    return f"{text} ({type(problem).__name__}{f' in {place}' if place else ''})"


def _remedy(problem: BaseException, reference: str) -> str:
    name = reference.rpartition(":")[0]
    missing = problem.name if isinstance(problem, ModuleNotFoundError) else None
    if missing and file_of(reference) is None and name.split(".")[0] == missing.split(".")[0]:
        return f"it is looked for in the current folder; or give its file: PATH/{missing}.py:NAME"
    if missing:
        return f"the module is code of yours and needs {missing.split('.')[0]!r} to be installed"
    return "the module is code of yours, and must be importable by itself"
