"""Plug-ins: modules that register attacks, defences, detectors, checks, datasets, chapters, verbs.

Loaded only where asked for: `--plugin`, `plugins` of a profile, or an entry point's name.
"""

import importlib
import importlib.util
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from purpleteam.core.errors import PurpleError, UsageError, place_of, reason_of

GROUP = "purpleteam.plugins"
_asked: list[str] = []
_loaded: set[str] = set()


def installed_plugins() -> dict[str, str]:
    """Return the module of each plug-in that an installed package offers, by its name."""
    return {point.name: point.value for point in metadata.entry_points(group=GROUP)}


def folder_of(name: str) -> Path | None:
    """Return the folder of an installed plug-in, without importing it."""
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(installed_plugins()[name])
        if spec is not None and spec.submodule_search_locations:
            return Path(next(iter(spec.submodule_search_locations)))
    return None


def module_of(name: str) -> str:
    """Return the module that a plug-in's name means: an installed one's, or the name itself."""
    return installed_plugins().get(name, name)


def asked_plugins() -> tuple[str, ...]:
    """Return the plug-ins that the command line asked for."""
    return tuple(_asked)


def load_plugin(name: str, *, asked: bool = False) -> None:
    """Import a plug-in, by which it registers itself; a second time is no work."""
    module = module_of(name)
    if asked and name not in _asked:
        _asked.append(name)
    if module in _loaded:
        return
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        getattr(importlib.import_module(module), "register", int)()
    except PurpleError:
        raise
    except ModuleNotFoundError as error:
        if error.name and not f"{module}.".startswith(f"{error.name}."):
            raise  # something that the plug-in needs is not installed
        known = ", ".join(sorted(installed_plugins())) or "none"
        where = "on the Python path or in the current folder"
        raise UsageError(f"plug-in {name!r} is no module {where}; installed: {known}") from None
    except Exception as error:
        told = f"{type(error).__name__}: {reason_of(error)} in {place_of(error)[1]}"
        raise UsageError(f"plug-in {name!r} cannot be loaded: {told}") from error
    finally:
        sys.path.remove(here)
    _loaded.add(module)


def load_chapters(name: str) -> None:
    """Import what an installed plug-in adds to the report: its module `chapters`, if it has one.

    A name in a stranger's run folder is never looked up on the Python path.
    """
    if name in installed_plugins():
        with suppress(ImportError):
            importlib.import_module(f"{module_of(name)}.chapters")


def check_trusted(name: str) -> None:
    """Refuse to load a plug-in because a run folder names it, where nobody here asked for it."""
    if name not in (*installed_plugins(), *_asked):
        raise UsageError(f"the run was made with the plug-in {name!r}: add --plugin {name}")
