"""Is what the attacks handed over what they say it is, and did they try enough?"""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.attacks.losses import margin
from purpleteam.attacks.norms import NORMS, distance, whole_cube
from purpleteam.attacks.soundness.case import FEW_STEPS, PROBED, Case
from purpleteam.attacks.soundness.verdict import Direction, Doubt, Observed

ROUNDING = 1e-6
"""What the arithmetic of a projection may add to a distance; measured in float64."""

ULP = 2.0**-24
"""What storing a value in float32 may add to it, for values up to 1."""

MISCOUNTED = 0.02
"""Share of images on which count and answer may differ."""

TIE = 1e-5
"""Share of the scores' spread by which another batch size may change a margin."""

ROUNDED = 0.5
"""Share of adversarial examples that may err in float32 alone: the nearest ones often do."""

GROWTH = 0.01
"""By how much robust accuracy may grow with epsilon: luck of random starts."""

STRONGER_WITHOUT = 0.05
"""Points of robust accuracy that the ladder's own attacks without gradients may still take."""


def candidates_are_feasible(case: Case) -> Observed:
    """Inside ball and range in float64, and no NaN."""
    worst = 0.0
    doubts: list[Doubt] = []
    for evaluation in case.evaluations:
        row = evaluation.attacks[-1]
        x_adv = torch.from_numpy(evaluation.x_adv)
        x = torch.from_numpy(case.images.images / np.float32(255))
        if not torch.isfinite(x_adv).all():
            reason = "an adversarial example holds NaN or infinity"
            doubts.append(Doubt("not_established", reason, "too_low"))
            continue
        beyond = torch.maximum(-x_adv, x_adv - 1).amax().double()
        if NORMS[case.norm].bounded:
            beyond = torch.maximum(beyond, (distance(x_adv, x, case.norm) - row.epsilon).amax())
        worst = max(worst, float(beyond))
    if worst > ROUNDING + ULP * _values(case):
        reason = f"an adversarial example leaves its ball or range by {worst:.2g}"
        doubts.append(Doubt("not_established", reason, "too_low"))
    return Observed({"beyond_ball_or_range": worst}, tuple(doubts))


def candidates_do_as_counted(case: Case) -> Observed:
    """The model errs on each example that was counted, and on no other candidate (silent success).

    An adapter that hands over the last step of a peer's attack may have passed an example before.
    """
    if not case.nets.differentiable or not case.steady:
        return Observed()
    attacked = np.flatnonzero(case.final.clean_correct)
    x_adv = torch.nan_to_num(case.candidates(attacked))
    y = case.y(attacked)
    scores = case.scores(x_adv)
    ahead = margin(scores, y).cpu().numpy()
    tie = TIE * float(scores.amax() - scores.amin())
    counted = case.final.broken_by[attacked] >= 0
    silent = int(((ahead > tie) & ~counted).sum())
    claimed = int(((ahead < -tie) & counted).sum())
    measured: dict[str, Any] = {"silent_successes": silent, "claimed_successes": claimed}
    doubts = [
        *_miscounted(case, silent, "the last candidates err, uncounted, on", "too_high"),
        *_miscounted(case, claimed, "examples that were counted do not err, on", "too_low"),
    ]
    broken = np.flatnonzero(counted)[:PROBED]
    rounded = _in_float32_alone(case, x_adv[broken], y[broken])
    if rounded is not None:
        measured["broken_in_float32_alone"] = rounded
        if rounded > ROUNDED and rounded * len(broken) > 1:
            reason = f"{rounded:.0%} of the adversarial examples err by rounding in float32 alone"
            doubts.append(Doubt("weak", reason, "too_low"))
    return Observed(measured, tuple(doubts))


def stronger_with_epsilon(case: Case) -> Observed:
    """A larger ball holds the smaller: robust accuracy must not grow with epsilon."""
    values = [evaluation.robust_accuracy.value for evaluation in case.evaluations]
    rise = max((after - before for before, after in itertools.pairwise(values)), default=0)
    measured = {"largest_rise_over_epsilon": max(rise, 0.0)}
    if rise <= GROWTH:
        return Observed(measured)
    reason = f"robust accuracy grows by {rise:.1%} with a larger epsilon"
    return Observed(measured, (Doubt("not_established", reason),))


def ladder_is_strong(case: Case) -> Observed:
    """A few steps are no strong attack, and none is one that follows no gradient."""
    measured: dict[str, Any] = {"most_steps": case.most_steps}
    if not case.nets.differentiable:
        reason = "only black-box attacks were possible: the model gives no gradients"
        return Observed(measured, (Doubt("weak", reason),))
    doubts = list(_ladder_needed_no_gradients(case, measured))
    if len(case.standing) == 0 or not NORMS[case.norm].bounded:
        return Observed(measured, tuple(doubts))
    if not case.white_box:
        doubts.append(Doubt("weak", "no attack of the ladder follows gradients, image by image"))
    elif case.most_steps < FEW_STEPS:
        steps = f"{case.most_steps} step(s)"
        reason = f"the strongest attack takes {steps}; an iterative one is stronger"
        doubts.append(Doubt("weak", reason))
    return Observed(measured, tuple(doubts))


def _ladder_needed_no_gradients(case: Case, measured: dict[str, Any]) -> tuple[Doubt, ...]:
    """Doubt gradients where the ladder's black-box attacks broke much that they left standing."""
    knowledge = [rung.knowledge for rung in case.rungs]
    if "white-box" not in knowledge or len(knowledge) != len(case.final.rungs):
        return ()
    first = knowledge.index("white-box")
    late = [place for place, kind in enumerate(knowledge) if place > first and kind != "white-box"]
    share = float(np.isin(case.final.broken_by, late).mean())
    measured["broken_by_black_box_rungs"] = share
    if share <= STRONGER_WITHOUT:
        return ()
    reason = f"the ladder's attacks without gradients broke {share:.0%} that gradients left"
    return (Doubt("weak", reason),)


def _miscounted(case: Case, images: int, what: str, side: Direction) -> tuple[Doubt, ...]:
    share = images / len(case.images)
    if images < 2 or share <= MISCOUNTED:
        return ()
    return (Doubt("not_established", f"{what} {images} of {len(case.images)} images", side),)


def _in_float32_alone(case: Case, x_adv: Tensor, y: Tensor) -> float | None:
    """Return the share on which the model is right in float64; None where it cannot compute so."""
    if not isinstance(case.model, nn.Module) or len(x_adv) == 0:
        return None
    try:
        precise = copy.deepcopy(case.model).double()
        with torch.no_grad():
            right = [
                precise(part.double()).argmax(1) == labels
                for part, labels in zip(torch.split(x_adv, 50), torch.split(y, 50), strict=True)
            ]
    except Exception:  # the model may be anybody's code, and made for float32
        return None
    return float(torch.cat(right).float().mean())


def _values(case: Case) -> float:
    """Return how far rounding every value of an image can move it, in units of one value."""
    x = case.x(np.arange(1))
    return whole_cube(x, case.norm) if NORMS[case.norm].convex else 1.0
