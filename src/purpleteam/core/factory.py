"""`module:factory` and `path/to/module.py:factory`: the user's own code.

What goes wrong in there is told in one line: whose code it was, where, and what to try.
"""

import contextlib
import copy
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import PurpleError, place_of, reason_of

_CALLED: dict[str, str] = {}
"""By how a card names it: what the user named in this process, and was called."""


def is_factory(reference: str) -> bool:
    """Say whether a reference has the form `module:factory` or `path/to/module.py:factory`."""
    module, separator, factory = reference.rpartition(":")
    dotted = all(part.isidentifier() for part in module.split("."))
    return bool(separator) and factory.isidentifier() and (dotted or file_of(reference) is not None)


def file_of(reference: str) -> Path | None:
    """Return the file that a reference names; None for a dotted module."""
    module = reference.rpartition(":")[0]
    is_path = module.endswith(".py") or "/" in module or "\\" in module
    if "://" in module or not is_path or not Path(module).stem:
        return None
    return Path(module if module.endswith(".py") else f"{module}.py")


def portable(reference: str) -> str:
    """Return a reference as a card may say it: a file within the current folder, or its name."""
    file = file_of(reference)
    if file is None:
        return reference
    path, here = file.expanduser().resolve(), Path.cwd().resolve()
    inside = path.relative_to(here) if path.is_relative_to(here) else Path(path.name)
    return f"{inside.as_posix()}:{reference.rpartition(':')[2]}"


def called_as(architecture: str) -> str | None:
    """Return what the user named in this process, and a card names as `architecture`."""
    return _CALLED.get(architecture)


def call_factory(
    reference: str, error: type[PurpleError], is_ready: Callable[[object], bool] = lambda _: False
) -> object:
    """Import the module, call the factory without arguments and return what it returns.

    Of what is no factory, but what is wanted itself (`is_ready`), a copy is returned; what fails is
    an `error` in one line.
    """
    name, _, factory_name = reference.rpartition(":")
    file = file_of(reference)
    path = file.expanduser().resolve() if file else None
    with contextlib.redirect_stdout(sys.stderr), contextlib.ExitStack() as after:
        try:  # standard output is for the answer
            if path is None:
                if (here := str(Path.cwd())) not in sys.path:
                    sys.path.insert(0, here)
                module = importlib.import_module(name)
            else:
                beside = str(_root(path))
                sys.path.insert(0, beside)
                after.callback(_leave, beside)
                if not path.is_file():
                    raise error(f"{reference!r}: there is no file {str(file)!r}")
                module = _module(path)
        except PurpleError:
            raise
        except (Exception, SystemExit) as problem:  # whatever the user's file does when imported
            remedy = "the module is code of yours, and must be importable by itself"
            if isinstance(problem, ModuleNotFoundError) and (missing := problem.name):
                package = missing.split(".")[0]
                remedy = f"the module is code of yours and needs {package!r} to be installed"
                if path is None and name.split(".")[0] == package:
                    place = f"PATH/{missing}.py:NAME"
                    remedy = f"it is looked for in the current folder; or give its file: {place}"
            why = f"{_what(problem)}; {remedy}"
            raise error(f"{reference!r}: module {name!r} cannot be imported: {why}") from None
        factory = getattr(module, factory_name, None)
        if factory is None:
            own = [known for known in vars(module) if not known.startswith("_")][-8:]
            lacks = f"has no {factory_name!r}; it has {', '.join(own) or 'nothing'}"
            raise error(f"{reference!r}: module {name!r} {lacks}")
        try:
            made: object = copy.deepcopy(factory) if is_ready(factory) else factory()
        except (Exception, SystemExit) as problem:
            form = ""
            remedy = f"name a function that takes none: def build(): return {factory_name}(...)"
            with contextlib.suppress(TypeError, ValueError):  # no function, or one that hides it
                signature = inspect.signature(factory)
                form = str(signature)
                signature.bind()
                remedy = f"try {factory_name}() by itself, and see that it returns what is wanted"
            why = f"{_what(problem)}; it is code of yours: {remedy}"
            called = f"{reference!r}{form} failed when called without arguments"
            raise error(f"{called}: {why}") from None
    _CALLED[portable(reference)] = reference
    return made


def _leave(folder: str) -> None:
    with contextlib.suppress(ValueError):  # the user's own code may have taken it out
        sys.path.remove(folder)


def _root(file: Path) -> Path:
    """Return the folder from which a file can be imported: above the packages that it lies in."""
    folder = file.parent
    while (folder / "__init__.py").is_file() and folder.parent != folder:
        folder = folder.parent
    return folder


def _module(file: Path) -> ModuleType:
    parts = file.relative_to(_root(file)).with_suffix("").parts
    if len(parts) > 1:  # of a package: it may import from `.`
        return importlib.import_module(".".join(parts))
    # A name of its own: a file may be called as a module that others import, `test` or `types`.
    name = f"{file.stem}_{sha256_bytes(str(file).encode())[7:15]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _what(problem: BaseException) -> str:
    """Return in one line what went wrong, and where in other people's code."""
    text, (whose, place) = reason_of(problem, 300), place_of(problem)
    if whose == "purpleteam" or isinstance(problem, SyntaxError):  # its text says the line already
        return text
    return f"{text} ({type(problem).__name__}{f' in {place}' if place else ''})"
