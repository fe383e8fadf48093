"""Find and name the pluggable parts: attacks, recipes, architectures, checks, scanners.

A part registers itself by a decorator in a file of its own, which `load` imports.
"""

import importlib
import math
import operator
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from types import ModuleType
from typing import Any, Generic, TypeVar, dataclass_transform

from purpleteam.core.errors import UsageError, unknown

T = TypeVar("T")
Part = TypeVar("Part")

LIMIT = re.compile(r"(at least|above|at most|under|below|from|to|between|and) (-?[\d.]+)|finite")
HOLDS: dict[str, Callable[[float, float], bool]] = {
    **dict.fromkeys(("at least", "from"), operator.ge),
    **dict.fromkeys(("above", "between"), operator.gt),
    **dict.fromkeys(("at most", "to"), operator.le),
    **dict.fromkeys(("under", "below", "and"), operator.lt),  # between 0 and 1
}


class Registry(Mapping[str, T], Generic[T]):
    """A named collection of parts, filled by decorator; iterates in order of name."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[Part], Part]:
        """Register the decorated part under `name`; a second part of that name is an error.

        A class with an attribute `name` or `id` is told it: what is recorded is what it is called.
        """

        def add(part: Part) -> Part:
            if name in self._items:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._items[name] = part  # type: ignore[assignment]
            for told in ("name", "id"):
                if isinstance(part, type) and isinstance(getattr(part, told, None), str):
                    setattr(part, told, name)
            return part

        return add

    def load(self, package: ModuleType) -> None:
        """Import every public module of `package`, so that each registers itself."""
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                importlib.import_module(f"{package.__name__}.{module.name}")

    def __getitem__(self, name: str) -> T:
        try:
            return self._items[name]
        except KeyError:
            raise UsageError(unknown(self.kind, name, self._items)) from None

    def get(self, name: str, default: Any = None) -> Any:
        """Return the part of that name, or `default`: here alone an unknown name is no error."""
        return self._items.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._items))

    def __len__(self) -> int:
        return len(self._items)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def part_of(registry: Registry[Any], name: str) -> Callable[[type[Part]], type[Part]]:
    """Make a class a frozen keyword-only dataclass, its fields its options, and register it."""

    def add(kind: type[Part]) -> type[Part]:
        return registry.register(name)(dataclass(frozen=True, kw_only=True)(kind))

    return add


def check_ranges(part: object) -> None:
    """Refuse an option outside its range, as `ranges` of the part's classes words it.

    Such as `ranges = "targets at least 1; decay from 0 to 1"`, of which each class gives those that
    it adds. None is always allowed, an option that the part lacks is passed over, and one of type
    int must be whole.
    """
    fields = getattr(part, "__dataclass_fields__", {})
    for kind in reversed(type(part).__mro__):
        for option in filter(None, vars(kind).get("ranges", "").split("; ")):
            name, _, wanted = option.partition(" ")
            value = getattr(part, name, None)
            is_int = name in fields and fields[name].type in (int, int | None, "int", "int | None")
            if not isinstance(value, (Integral if is_int else Real) | None):
                wanted = f"{'whole' if is_int else 'a number'} and {wanted}"
            elif value is None or within(float(value), wanted):
                continue
            raise ValueError(f"{name} must be {wanted}, not {value!r}")


def within(value: float, wanted: str) -> bool:
    """Say whether a value lies in a range in words, such as `above 0 and finite`."""
    limits = LIMIT.findall(wanted)
    return all(
        HOLDS[word](value, float(limit)) if word else math.isfinite(value) for word, limit in limits
    )
