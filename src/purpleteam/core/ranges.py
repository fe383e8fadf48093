"""The ranges that the fields of a part may have, by their words in the error."""

from __future__ import annotations

from collections.abc import Callable

RANGES: dict[str, Callable[[float], bool]] = {
    "at least 0": lambda value: value >= 0,
    "at least 1": lambda value: value >= 1,
    "at least 2": lambda value: value >= 2,
    "finite and at least 0": lambda value: 0 <= value < float("inf"),
    "above 0 and finite": lambda value: 0 < value < float("inf"),
    "above 0 and at most 1": lambda value: 0 < value <= 1,
    "between 0 and 1": lambda value: 0 < value < 1,
    "at least 0 and below 1": lambda value: 0 <= value < 1,
    "from 0 to 1": lambda value: 0 <= value <= 1,
}


def check_fields(part: object, range_: str, *names: str) -> None:
    """Raise ValueError, in one line, where a field of `part` is not in one of the `RANGES`."""
    for name in names:
        value = getattr(part, name)
        if not RANGES[range_](value):
            raise ValueError(f"{name} must be {range_}, not {value}")
