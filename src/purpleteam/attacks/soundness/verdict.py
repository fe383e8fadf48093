"""The words of the verdict, and what a check says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Doubt", "Level", "Observed", "Soundness", "excused", "more_than", "verdict_of"]

Level = Literal["sound", "weak", "not_established"]

Doubt = tuple[Level, str]
"""How much is lost, and why in one line."""


@dataclass(frozen=True)
class Observed:
    """What one check measured, and the doubts that follow from it."""

    measured: Mapping[str, Any] = field(default_factory=dict)
    doubts: tuple[Doubt, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Soundness:
    """The verdict, a reason for each doubt, and what each check measured."""

    verdict: Level
    reasons: tuple[str, ...]
    checks: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the field `soundness` of `purple attack --json`."""
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "checks": dict(self.checks),
        }


HANDFUL = 5
"""Images among which a single one already counts."""


def more_than(share: float, count: int, images: int) -> bool:
    """Say whether so many are more than a share of the images; one alone may be an oddity."""
    return count > share * images and (count > 1 or images < HANDFUL)


def excused(observed: Observed) -> Observed:
    """Return the same with every doubt a weak one."""
    return Observed(observed.measured, tuple(("weak", reason) for _, reason in observed.doubts))


def verdict_of(observed: list[Observed]) -> Soundness:
    """Return the verdict: the worst level of any doubt, the gravest reasons first."""
    doubts = sorted(
        (doubt for one in observed for doubt in one.doubts), key=lambda doubt: doubt[0] == "weak"
    )
    measured: dict[str, Any] = {}
    for one in observed:
        measured |= one.measured
    return Soundness(
        verdict=doubts[0][0] if doubts else "sound",
        reasons=tuple(reason for _, reason in doubts),
        checks=measured,
    )
