"""The words of the verdict, what a check says, and the rule that decides.

A verdict says how far off the number of the attacks may be. The check attacks the images that they
left standing; `overstates` is the share of the images looked at that fall to it.

- `sound`: at most 2 points fall, and no other doubt was raised. The share itself decides and not
  the ends of its interval, or the verdict on 10,000 images would be another than on 1,000 of them.
- Where the upper end of the interval is above 10 points, too few images were looked at to say so:
  `weak`, with that reason.
- Where no image stands, nothing is left to overstate: only doubts that the number is too low count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from purpleteam.attacks.outcomes import Breaks
from purpleteam.core.statistics import Estimate, Rate

Level = Literal["sound", "weak", "not_established"]
Direction = Literal["too_high", "too_low", "either"]
"""Where the number of the attacks may be off to."""
TOLERATED = 0.02
"""Points of robust accuracy that the check's attacks may take from a sound number."""
VAGUE = 0.1
"""Upper end of the interval from which on too few images were looked at to call a number sound."""


HANDFUL = 5
"""Images among which a single one already counts."""


class Doubt(NamedTuple):
    """How much is lost, why in one line, and to which side the number may be off."""

    level: Level
    reason: str
    direction: Direction = "too_high"


@dataclass(frozen=True)
class Observed:
    """What one check measured, and the doubts that follow from it."""

    measured: Mapping[str, Any] = field(default_factory=dict)
    doubts: tuple[Doubt, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Soundness:
    """The verdict on an evaluation.

    Attributes:
        verdict: how much the number is worth.
        reasons: one for each doubt.
        overstates: by how much the number of the attacks is too high, as a share of all images;
            below 0 it is too low. None where it could not be measured.
        direction: to which side the number may be off; None where it is sound.
        checks: what each check measured.
        cost: model calls of the checks, counted per image: `forward`, `backward`.
        breaks: the adversarial examples that the check found; `RobustEvaluation.counting` takes
            them into account.
    """

    verdict: Level
    reasons: tuple[str, ...]
    overstates: Rate | Estimate | None = None
    direction: Direction | None = None
    checks: Mapping[str, Any]
    cost: Mapping[str, int] = field(default_factory=dict)
    breaks: Breaks | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the field `soundness` of `purple attack --json`."""
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "overstates": None if self.overstates is None else self.overstates.to_json(),
            "direction": self.direction,
            "cost": dict(self.cost),
            "checks": dict(self.checks),
        }


def more_than(share: float, count: int, images: int) -> bool:
    """Say whether so many are more than a share of the images; one alone may be an oddity."""
    return count > share * images and (count > 1 or images < HANDFUL)


def overstatement(
    overstates: Rate | Estimate | None, by: Mapping[str, int], epsilon: float
) -> Observed:
    """Return the doubt that what was measured raises, by the rule of this module.

    Args:
        overstates: as in `Soundness`.
        by: how many images fell to each attack of the check.
        epsilon: radius at which that was.
    """
    if overstates is None:
        return Observed()
    points, low, high = (100 * abs(v) for v in (overstates.value, overstates.low, overstates.high))
    side: Direction = "too_high"
    if overstates.value < -TOLERATED:
        side = "too_low"
        reason = (
            f"the number is {points:.1f} points too low ({high:.1f} to {low:.1f}): "
            "asked again, the model is right on examples that were counted"
        )
    elif overstates.value > TOLERATED:
        how = ", ".join(f"{name} {count}" for name, count in by.items() if count)
        reason = (
            f"at epsilon {epsilon:g} the attacks overstate robust accuracy by {points:.1f} points "
            f"({low:.1f} to {high:.1f}): of {overstates.n} images, the check broke more ({how})"
        )
    elif overstates.high > VAGUE:
        reason = (
            f"too few images to call it sound: of {overstates.n} looked at, the check's attacks "
            f"may still break up to {high:.0f} points more"
        )
    else:
        return Observed()
    return Observed({}, (Doubt("weak", reason, side),))


def verdict_of(
    observed: Sequence[Observed],
    *,
    overstates: Rate | Estimate | None = None,
    cost: Mapping[str, int],
    breaks: Breaks | None = None,
    nothing_stands: bool = False,
) -> Soundness:
    """Return the verdict: the worst level of any doubt, the gravest reasons first."""
    measured: dict[str, Any] = {}
    doubts: list[Doubt] = []
    for result in observed:
        measured |= result.measured
        doubts += result.doubts
    if nothing_stands:
        doubts = [doubt for doubt in doubts if doubt.direction != "too_high"]
    doubts.sort(key=lambda doubt: doubt.level == "weak")
    sides = {doubt.direction for doubt in doubts}
    direction = None if not sides else sides.pop() if len(sides) == 1 else "either"
    return Soundness(
        verdict=doubts[0].level if doubts else "sound",
        reasons=tuple(doubt.reason for doubt in doubts),
        overstates=overstates,
        direction=direction,
        checks=measured,
        cost=cost,
        breaks=breaks,
    )
