"""The ranges that the fields of a part may have, by their words in the error."""

from __future__ import annotations

from purpleteam.core.registry import within


def check_fields(part: object, wanted: str, *names: str) -> None:
    """Raise ValueError, in one line, where a field of `part` is not `within` the range."""
    for name in names:
        if not within(value := getattr(part, name), wanted):
            raise ValueError(f"{name} must be {wanted}, not {value}")
