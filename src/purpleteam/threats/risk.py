"""The OWASP risk rating: likelihood times impact gives a level, by one 3 x 3 matrix.

                     likelihood low   medium   high
    impact high      medium           high     critical
    impact medium    low              medium   high
    impact low       note             low      medium

No level is ever typed: it is computed here from the two ratings and, for what remains, from
the ratings less the credits of the mitigations that were verified.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from purpleteam.core.records import Severity

__all__ = ["LEVELS", "RATINGS", "Effect", "Rating", "Risk", "level", "worst"]

Rating = Literal["low", "medium", "high"]

RATINGS: tuple[Rating, ...] = ("low", "medium", "high")
LEVELS: tuple[Severity, ...] = ("note", "low", "medium", "high", "critical")


def level(likelihood: Rating, impact: Rating) -> Severity:
    """Return the level that the matrix gives."""
    return LEVELS[RATINGS.index(likelihood) + RATINGS.index(impact)]


def worst(levels: Iterable[Severity]) -> Severity | None:
    """Return the highest of the levels; None where there is none."""
    return max(levels, key=LEVELS.index, default=None)


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a mitigation takes off, in steps of a rating, once it is verified."""

    likelihood: Literal[-1, 0] = 0
    impact: Literal[-1, 0] = 0


@dataclass(frozen=True, kw_only=True)
class Risk:
    """How likely a threat is and how bad, with the reason."""

    likelihood: Rating
    impact: Rating
    why: str

    @property
    def level(self) -> Severity:
        """The level before any mitigation is credited."""
        return level(self.likelihood, self.impact)

    def after(self, effects: Iterable[Effect]) -> Severity:
        """Return the level that remains; no rating falls below low."""
        credited = list(effects)
        return level(
            _lowered(self.likelihood, sum(one.likelihood for one in credited)),
            _lowered(self.impact, sum(one.impact for one in credited)),
        )


def _lowered(rating: Rating, steps: int) -> Rating:
    return RATINGS[max(0, RATINGS.index(rating) + steps)]
