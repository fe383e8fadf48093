"""How a command ended, and what the values of --json look like."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TINY = ("--dataset", "digits", "--arch", "small_cnn", "--epochs", 1)
"""Options for the cheapest training there is."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on standard output; NaN is no JSON."""

        def refuse(name: str) -> None:
            raise ValueError(f"{name} is no JSON")

        assert self.out.count("\n") == 1, "more than one line on standard output"
        found: dict[str, Any] = json.loads(self.out, parse_constant=refuse)
        return found


Purple = Callable[..., Ended]


def assert_rate(value: dict[str, Any], n: int | None = None) -> None:
    """A rate has its five fields and lies within its own interval."""
    assert set(value) == {"value", "n", "low", "high", "method"}
    assert 0 <= value["low"] <= value["value"] <= value["high"] <= 1
    assert value["method"] == "clopper-pearson"
    assert n is None or value["n"] == n


def answer_of(values: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without where its run lies, as `--out` holds it."""
    return {key: value for key, value in values.items() if key not in ("run", "report")}
