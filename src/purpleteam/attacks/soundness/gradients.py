"""Do the model's gradients say where it errs?

Unavailable gradients and unstable predictions are the first two indicators of attack failure
(Pintor et al. 2022, arXiv:2106.09947); a step that does not climb shows gradients that are there
and wrong (Athalye et al. 2018, arXiv:1802.00420). All look at the margin, which no confidence
saturates, so a large logit alone is no mask.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from purpleteam.attacks.losses import cross_entropy, margin
from purpleteam.attacks.norms import project, steepest, uniform_start
from purpleteam.attacks.soundness.case import Case
from purpleteam.attacks.soundness.counters import Counters
from purpleteam.attacks.soundness.verdict import Doubt, Level, Observed, more_than

BLIND = 0.05
"""Share of images without a gradient from which on the attack is called blind."""

SHORT_STEPS = (1 / 40, 1 / 20, 1 / 10)
"""Lengths, as shares of epsilon, at which a step along the gradient must raise the margin."""

STUCK, MISLED = 0.05, 0.2
"""Share of images that do not climb: a few may sit on a kink; a fifth is no accident."""

BLENDS = (0.25, 0.5, 0.75)
"""Where the way to an image of another class is looked at."""

NEAR = 1 / 20
"""Radius, as a share of epsilon, within which predictions should hardly change."""

DRAWS = 3
"""Points in that radius, for each image."""

CLOSE = 0.05
"""Share of the scores' spread below which a margin is no measure of its change."""

UNSTABLE = 0.1
"""Mean relative change of the margin, as in the paper; honest nets stay below 0.03."""


def gradients_are_there(case: Case, counters: Counters) -> Observed:
    """Zero or NaN gradients leave a gradient attack blind.

    Where cross-entropy alone is flat the net is only confident, and that is held against the
    attack if a loss that nothing saturates breaks what the attack left standing.
    """
    if not case.follows_gradients:
        return Observed()
    x, y = case.x(case.probed), case.y(case.probed)
    asked = case.slope(x, y, cross_entropy)
    confident = int((asked.undefined | asked.zero).sum()) / len(x)
    if not asked.connected:
        reason = "the model's output does not depend on its input by gradients"
        measured = {"zero_gradients": 1.0, "masked_gradients": 1.0}
        return Observed(measured, (Doubt("not_established", reason),))
    hidden = int(_masked(case, x, y).sum())
    masked = hidden / len(x)
    measured = {"zero_gradients": confident, "masked_gradients": masked}
    if more_than(BLIND, hidden, len(x)):
        reason = f"the gradient is zero or NaN on {masked:.0%} of the images"
        return Observed(measured, (Doubt("not_established", reason),))
    fell = int(counters.continued.fell.sum())
    if confident > BLIND and case.overstated(fell) > BLIND and fell > 1:
        reason = (
            f"the gradient of cross-entropy is zero or NaN on {confident:.0%} of the images, "
            f"and the margin's breaks {fell} that still stood"
        )
        return Observed(measured, (Doubt("not_established", reason),))
    return Observed(measured)


def _masked(case: Case, x: Tensor, y: Tensor) -> Tensor:
    """Say for which images gradients are NaN, or zero although the scores change.

    The image, a point of its ball and the attack's last candidate are looked at; where all three
    are flat, so is the way to an image of another class. A net that is flat only where it is
    constant hides nothing.
    """
    inside = uniform_start(x, case.epsilon, case.norm, case.noise(case.probed, "gradients"))
    points = (x, inside, case.candidates(case.probed))
    slopes = [case.slope(point, y, margin) for point in points]
    undefined = torch.stack([one.undefined for one in slopes]).any(0)
    flat = torch.stack([one.zero for one in slopes]).all(0) & ~undefined
    if not flat.any():
        return undefined
    scores = torch.stack([case.scores(point[flat]) for point in points])
    varies = ((scores - scores[0]) != 0).flatten(2).any(2).any(0)
    hidden = undefined.clone()
    hidden[flat] = varies | _flat_on_the_way(case, x[flat], y[flat])
    return hidden


def _flat_on_the_way(case: Case, x: Tensor, y: Tensor) -> Tensor:
    """Say for which images there is no gradient all the way to an image of another class."""
    rows = np.flatnonzero(case.final.clean_correct)
    labels = case.images.labels[rows]
    differs = labels[None] != y.cpu().numpy()[:, None]  # (n, rows)
    there = case.x(rows[differs.argmax(1)])
    flat = torch.from_numpy(differs.any(1)).to(x.device)
    for share in BLENDS:
        flat &= case.slope(x + share * (there - x), y, margin).zero
    return flat


def steps_climb(case: Case) -> Observed:
    """A short step along the gradient must raise the margin; where it does not, it misleads.

    Shattered, reversed or random gradients are neither zero nor NaN, and the images that they
    protect fall to any attack that does not follow them. Of a step function the scores stay as
    they are for short steps.
    """
    if not case.follows_gradients or not case.steady or case.epsilon == 0:
        return Observed()
    x, y = case.x(case.probed), case.y(case.probed)
    slope = case.slope(x, y, margin)
    direction = steepest(torch.nan_to_num(slope.gradient), case.norm)
    before = _margins(case, x, y)
    stuck = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for length in SHORT_STEPS:
        moved = project(x + length * case.epsilon * direction, x, case.epsilon, case.norm)
        went = (moved != x).flatten(1).any(1)  # some gradients are zero, or lead out of the range
        stuck |= (_margins(case, moved, y) <= before) & went
    share = int(stuck.sum()) / len(x)
    measured = {"steps_that_do_not_climb": share}
    if not more_than(STUCK, int(stuck.sum()), len(x)):
        return Observed(measured)
    level: Level = "weak" if share <= MISLED else "not_established"
    reason = f"a short step along the gradient raises no loss on {share:.0%} of the images"
    return Observed(measured, (Doubt(level, reason),))


def predictions_are_stable(case: Case) -> Observed:
    """Where the margin jumps about within a small radius, no gradient leads anywhere."""
    if not case.follows_gradients or not case.steady or case.epsilon == 0:
        return Observed()
    x, y = case.x(case.probed), case.y(case.probed)
    noise = case.noise(case.probed, "stability")
    scores = case.scores(x)
    before = margin(scores, y)
    near_zero = CLOSE * (scores.amax() - scores.amin()).clamp_min(1e-12)
    changes = []
    for _ in range(DRAWS):
        near = uniform_start(x, NEAR * case.epsilon, case.norm, noise)
        change = (_margins(case, near, y) - before).abs() / torch.maximum(before.abs(), near_zero)
        changes.append(torch.nan_to_num(change).clamp_max(1))
    mean = float(torch.stack(changes).mean())
    measured: dict[str, Any] = {"unstable_predictions": mean}
    doubts: tuple[Doubt, ...] = ()
    if mean > UNSTABLE:
        reason = f"the margin changes by {mean:.0%} within a twentieth of epsilon: it is noise"
        doubts = (Doubt("not_established", reason),)
    return Observed(measured, doubts)


def _margins(case: Case, x: Tensor, y: Tensor) -> Tensor:
    return margin(case.scores(x), y)
