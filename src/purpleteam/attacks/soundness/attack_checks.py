"""Did the attacks find what was there to find, and is what they handed over what they say it is?

Silent success, incomplete optimisation, transfer failure and the failure of an attack without a
bound are the other four indicators of attack failure (Pintor et al. 2022, arXiv:2106.09947); a
black-box attack that is the stronger one is a sign of masked gradients (Carlini et al. 2019,
arXiv:1902.06705).
"""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.attacks.evasion.far_start import FarStart
from purpleteam.attacks.losses import margin
from purpleteam.attacks.norms import NORMS, distance, whole_cube
from purpleteam.attacks.soundness.case import FEW_STEPS, PROBED, Case
from purpleteam.attacks.soundness.counters import Counters
from purpleteam.attacks.soundness.verdict import Direction, Doubt, Level, Observed, more_than

STRAY, MANY = 0.03, 0.1
"""Points of robust accuracy that a weaker attack may take by luck, and that it may not at all."""
UNFINISHED, HARDLY_BEGUN = 0.2, 0.4
"""The same for more gradient steps, on the margin: in honest nets PGD left up to 0.16 of it."""
RISING = 0.25
"""Share of the clean margin by which more steps may still raise it, on average."""
HELD = 0.05
"""Share of images that may withstand an attack without a bound: some get stuck."""
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


def single_step_is_not_stronger(case: Case, counters: Counters) -> Observed:
    """A weak attack that breaks what the ladder left standing betrays masked gradients."""
    if not counters.fair:
        return Observed()
    fell = int(counters.single_step.sum())
    reason = f"a single step breaks {fell} images that the ladder left standing"
    points = case.overstated(fell)
    return Observed(
        {"broken_by_fgsm_only": fell}, _doubts(case, reason, fell, points, STRAY, points, MANY)
    )


def black_box_is_not_stronger(case: Case, counters: Counters) -> Observed:
    """What needs no gradient must not be stronger than what follows them.

    If the check's own gradient attack breaks the same images, the ladder was weak; if it does
    not, the gradients hide them.
    """
    if not counters.fair:
        return Observed()
    each = {name: int(broken.sum()) for name, broken in counters.black_box.items()}
    fell = int(counters.fell_to_black_box.sum())
    hidden = int((counters.fell_to_black_box & ~counters.continued.fell).sum())
    measured = {
        "broken_by_black_box_only": fell,
        "hidden_from_gradients": hidden,
        "black_box": each,
    }
    how = ", ".join(f"{name} {count}" for name, count in each.items() if count)
    reason = f"attacks without gradients break {fell} images that still stood ({how})"
    points, masked = case.overstated(fell), case.overstated(hidden)
    return Observed(measured, _doubts(case, reason, fell, points, STRAY, masked, MANY))


def far_start_is_not_stronger(case: Case, counters: Counters) -> Observed:
    """Gradients that are followed from another class must not find what the ladder did not.

    A net that is flat around its images, but not on the way to the next class, is such a case.
    """
    if not counters.fair:
        return Observed()
    fell = counters.strong.get(FarStart.name, 0)
    reason = f"gradients followed from images of other classes break {fell} that still stood"
    points = fell / len(case.looked_at)
    doubts = _doubts(case, reason, fell, points, UNFINISHED, points, HARDLY_BEGUN)
    return Observed({"broken_from_afar": fell}, doubts)


def optimisation_is_complete(case: Case, counters: Counters) -> Observed:
    """More steps from the last candidates should gain little."""
    if not counters.fair:
        return Observed()
    fell, rise = int(counters.continued.fell.sum()), counters.continued.rise
    reason = f"more steps break {fell} images that the ladder left standing"
    points = case.overstated(fell)
    doubts = _doubts(case, reason, fell, points, UNFINISHED, points, HARDLY_BEGUN)
    if not doubts and rise > RISING:
        reason = f"the loss is still rising at the last step: by {rise:.0%} of the margin"
        doubts = (Doubt("weak", reason),)
    return Observed({"broken_by_more_steps": fell, "rise_by_more_steps": rise}, doubts)


def unbounded_breaks_everything(case: Case, counters: Counters) -> Observed:
    """With no bound at all every image can be turned into any other.

    A model whose scores are the same for every image has nothing to hide.
    """
    if not case.follows_gradients or case.constant:
        return Observed({"survived_unbounded": 0})
    left, tried = counters.survived_unbounded
    measured = {"survived_unbounded": left}
    if not more_than(HELD, left, tried):
        return Observed(measured)
    reason = f"an unbounded attack leaves {left} of {tried} images: the gradients are masked"
    return Observed(measured, (Doubt("not_established", reason),))


def ladder_is_strong(case: Case) -> Observed:
    """A few steps are no strong attack, and none is one that follows no gradient.

    Gradients are in doubt where the ladder's black-box attacks broke much that they left standing.
    """
    measured: dict[str, Any] = {"most_steps": case.most_steps}
    if not case.nets.differentiable:
        reason = "only black-box attacks were possible: the model gives no gradients"
        return Observed(measured, (Doubt("weak", reason),))
    doubts = []
    knowledge = [rung.knowledge for rung in case.rungs]
    if "white-box" in knowledge and len(knowledge) == len(case.final.rungs):
        first = knowledge.index("white-box")
        late = [i for i, kind in enumerate(knowledge) if i > first and kind != "white-box"]
        share = float(np.isin(case.final.broken_by, late).mean())
        measured["broken_by_black_box_rungs"] = share
        if share > STRONGER_WITHOUT:
            reason = f"the ladder's attacks without gradients broke {share:.0%} that gradients left"
            doubts.append(Doubt("weak", reason))
    if len(case.standing) and NORMS[case.norm].bounded:
        if not case.white_box:
            reason = "no attack of the ladder follows gradients, image by image"
            doubts.append(Doubt("weak", reason))
        elif case.most_steps < FEW_STEPS:
            steps = f"{case.most_steps} step(s)"
            reason = f"the strongest attack takes {steps}; an iterative one is stronger"
            doubts.append(Doubt("weak", reason))
    return Observed(measured, tuple(doubts))


def candidates_are_feasible(case: Case) -> Observed:
    """Inside ball and range in float64, and no NaN."""
    worst = 0.0
    doubts: list[Doubt] = []
    for evaluation in case.evaluations:
        x_adv = torch.from_numpy(evaluation.x_adv)
        x = torch.from_numpy(case.images.images / np.float32(255))
        if not torch.isfinite(x_adv).all():
            reason = "an adversarial example holds NaN or infinity"
            doubts.append(Doubt("not_established", reason, "too_low"))
            continue
        beyond = torch.maximum(-x_adv, x_adv - 1).amax().double()
        if NORMS[case.norm].bounded:
            outside = distance(x_adv, x, case.norm) - evaluation.attacks[-1].epsilon
            beyond = torch.maximum(beyond, outside.amax())
        worst = max(worst, float(beyond))
    # how far rounding every value of an image can move it, in units of one value
    values = whole_cube(case.x(np.arange(1)), case.norm) if NORMS[case.norm].convex else 1.0
    if worst > ROUNDING + ULP * values:
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
    x_adv, y = torch.nan_to_num(case.candidates(attacked)), case.y(attacked)
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


def _doubts(
    case: Case, reason: str, fell: int, points: float, some: float, masked: float, many: float
) -> tuple[Doubt, ...]:
    """Return the doubt that so many fallen images raise; one image alone is luck.

    A ladder of a few steps is merely weak: that it is beaten says nothing of the gradients.
    """
    if fell < 2 or points <= some:
        return ()
    excused = case.most_steps < FEW_STEPS or masked <= many
    level: Level = "weak" if excused else "not_established"
    return (Doubt(level, reason),)


def _miscounted(case: Case, images: int, what: str, side: Direction) -> tuple[Doubt, ...]:
    if images < 2 or images / len(case.images) <= MISCOUNTED:
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
