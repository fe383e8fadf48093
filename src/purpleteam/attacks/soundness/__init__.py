"""Is this evaluation valid? Checks on the attack, not on the model.

A robust accuracy is an upper bound that a better attack may lower; these checks (after Carlini et
al. 2019, arXiv:1902.06705; `checks` names the rest) say when it is worth nothing.

    sound              the check's attacks broke at most 2 points more, nothing else is in doubt
    weak               off by more, or likely to be: `overstates` and `direction` say how far
    not_established    the attack had no fair chance; the number must not be quoted

The share that falls decides and not the ends of its interval, or the verdict would depend on the
number of images; where its upper end is above 10 points, there were too few to say `sound`. Where
no image stands, only doubts that the number is too low count.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from purpleteam.attacks.evasion import EvasionAttack
from purpleteam.attacks.outcomes import Breaks, RobustEvaluation
from purpleteam.attacks.soundness.case import LOOKED_AT, Case, Direction, Doubt, Level
from purpleteam.attacks.soundness.checks import CHECKS
from purpleteam.core.records import plain
from purpleteam.core.statistics import Estimate, Rate, mean
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import device_of, frozen
from purpleteam.models.guard import Classifier, guarded

__all__ = ["Soundness", "soundness_of"]

TOLERATED = 0.02  # points of robust accuracy that the check's attacks may take from a sound number
VAGUE = 0.1  # upper end of the interval from which on too few images were looked at
REDRAWN = 10  # draws of the answers to each candidate where they change


@dataclass(frozen=True, kw_only=True)
class Soundness:
    """The verdict on an evaluation."""

    verdict: Level
    reasons: tuple[str, ...]
    overstates: Rate | Estimate | None = None
    """By how much the number of the attacks is too high, as a share of all images; below 0 it is
    too low. None where it could not be measured."""
    direction: Direction | None = None
    """To which side the number may be off; None where it is sound."""
    cost: Mapping[str, int] = field(default_factory=dict)
    """Model calls of the checks, counted per image: `forward`, `backward`."""
    checks: Mapping[str, Any] = field(default_factory=dict)
    breaks: Breaks | None = field(default=None, repr=False, compare=False)
    """The examples that the check found; `RobustEvaluation.counting` takes them into account."""

    def to_json(self) -> dict[str, Any]:
        """Return the field `soundness` of `purple attack --json`."""
        return dict(plain({key: told for key, told in vars(self).items() if key != "breaks"}))


def soundness_of(
    model: Classifier,
    images: ImageSet,
    attacks: Sequence[EvasionAttack],
    evaluations: Sequence[RobustEvaluation],
    *,
    seed: int = 0,
    looked_at: int = LOOKED_AT,
) -> Soundness:
    """Return the verdict on the evaluations (one for each epsilon, growing) of one ladder.

    The check attacks what stands of at most `looked_at` images: 10 of 500 are 2 points. The same
    seed gives the same verdict; a model that draws random numbers draws them from torch's generator
    as the seed sets it, and the caller's is left where it was.
    """
    if not all(one.clean_correct[one.kept].any() for one in evaluations):
        reason = "no image is right when clean: there is nothing to attack"
        return Soundness(verdict="not_established", reasons=(reason,))
    device, measured, doubts = device_of(model), dict[str, Any](), list[Doubt]()
    overstates: Rate | Estimate | None = None  # where it cannot be measured
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), frozen(model):
        torch.manual_seed(seed)
        case = Case(guarded(model), images, attacks, evaluations, seed, looked_at)
        for check, needs in CHECKS:
            for seen in check(case) if all(getattr(case, need) for need in needs) else ():
                if isinstance(seen, Doubt):
                    doubts.append(seen)
                else:
                    measured |= seen
        if case.measurable:
            _ = case.strong  # makes these attacks, where no check has asked for them
            overstates = Rate.of(len(case.examples), len(case.looked_at))
        elif case.differentiable and not case.steady:
            overstates = redrawn(case)
    if overstates is not None:
        by = Counter(name for name, _ in case.examples.values())
        left = case.final.robust_accuracy
        doubts = [*overstatement(overstates, by, case.epsilon, left), *doubts]
    if not case.final.robust.any():
        doubts = [doubt for doubt in doubts if doubt.direction != "too_high"]
    doubts.sort(key=lambda doubt: doubt.level == "weak")  # the gravest first
    sides = {doubt.direction for doubt in doubts}
    return Soundness(
        verdict=doubts[0].level if doubts else "sound",
        reasons=tuple(doubt.reason for doubt in doubts),
        overstates=overstates,
        direction=None if not sides else sides.pop() if len(sides) == 1 else "either",
        checks=measured,
        cost=asdict(case.cost),
        breaks=case.breaks,
    )


def overstatement(
    overstates: Rate | Estimate, by: Mapping[str, int], epsilon: float, left: Rate
) -> Iterator[Doubt]:
    """Yield the doubt of a number that is too high or too low.

    `by` counts what fell to what; no more can fall than is `left` standing by the attacks.
    """
    high = max(overstates.value, min(overstates.high, left.high))
    points, least, most = (100 * end for end in (overstates.value, overstates.low, high))
    if overstates.value < -TOLERATED:
        reason = (
            f"the number is {-points:.1f} points too low ({-most:.1f} to {-least:.1f}): "
            "asked again, the model is right on examples that were counted"
        )
        yield Doubt("weak", reason, "too_low")
    elif overstates.value > TOLERATED:
        how = ", ".join(f"{name} {count}" for name, count in by.items())
        reason = (
            f"at epsilon {epsilon:g} the attacks overstate robust accuracy by {points:.1f} points "
            f"({least:.1f} to {most:.1f}): of {overstates.n} images, the check broke more ({how})"
        )
        yield Doubt("weak", reason)
    elif high > VAGUE:
        reason = (
            f"too few images to call it sound: of {overstates.n} looked at, the check's attacks "
            f"may still break up to {most:.0f} points more"
        )
        yield Doubt("weak", reason)


def redrawn(case: Case) -> Estimate:
    """Return how far the number is above the mean over draws, on the ladder's own candidates."""
    attacked = case.final.clean_correct[case.looked_at]
    rows = case.looked_at[attacked]
    right = torch.zeros(len(rows), dtype=torch.float64)
    x_adv, (_, y) = torch.nan_to_num(case.candidates(rows)), case.at(rows)
    rng = torch.Generator().manual_seed(case.seed)
    for _ in range(REDRAWN):
        order = torch.randperm(len(rows), generator=rng)  # other neighbours each time
        right[order] += (~case.errs(x_adv[order], y[order])).cpu().double() / REDRAWN
    above = np.zeros(len(attacked))
    above[attacked] = case.final.robust[rows] - right.numpy()
    return mean(above.tolist(), bounds=(-1, 1))
