"""What the model answers, and whether its gradients say where it errs.

The flags of AutoAttack (Croce and Hein 2020, arXiv:2003.01690): answers that are random,
probabilities, of few values, or optimised on the way. Unavailable gradients and unstable
predictions are the first two indicators of attack failure (Pintor et al. 2022, arXiv:2106.09947);
a step that does not climb shows gradients that are there and wrong (Athalye et al. 2018,
arXiv:1802.00420). These look at the margin, which no confidence saturates, so a large logit alone
is no mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from purpleteam.attacks.losses import cross_entropy, margin
from purpleteam.attacks.norms import project, steepest, uniform_start
from purpleteam.attacks.soundness.case import Case
from purpleteam.attacks.soundness.counters import Counters
from purpleteam.attacks.soundness.verdict import Direction, Doubt, Level, Observed, more_than
from purpleteam.attacks.wrappers import Averaged
from purpleteam.core.statistics import Estimate, mean

ADDS_UP = 1e-3
"""By how much the sum of probabilities may miss 1: what half precision leaves."""
REDRAWN = 10
"""Draws of the answers to each candidate where they change."""
DISTINCT = 0.1
"""Least share of different values among the scores; a net in bfloat16 has over 0.2."""
WITHOUT_GRADIENT = 0.05
"""Share of images without a gradient from which on the attack had no fair chance."""
SHORT_STEPS = (1 / 40, 1 / 20, 1 / 10)
"""Lengths, as shares of epsilon, at which a step along the gradient must raise the margin."""
STUCK, MISLED = 0.05, 0.2
"""Share of images that do not climb: a few may sit on a kink; a fifth is no accident."""
BLENDS = (0.25, 0.5, 0.75)
"""Where the way to an image of another class is looked at."""
NEAR = 1 / 20
"""Radius, as a share of epsilon, within which predictions should hardly change."""
NEARBY_POINTS = 3
"""In that radius, for each image."""
CLOSE = 0.05
"""Share of the scores' spread below which a margin is no measure of its change."""
UNSTABLE = 0.1
"""Mean relative change of the margin, as in the paper; honest nets stay below 0.03."""


def answers_are_steady(case: Case) -> Observed:
    """Where outputs are random, a gradient attack has to average over them."""
    measured: dict[str, Any] = {"randomised": case.randomised}
    # where the number may be off to: a lucky draw breaks, a gradient of one misleads
    side: Direction = "either" if case.final.robust.any() else "too_high"
    if case.randomised:
        if case.white_box and all(getattr(rung, "samples", 1) > 1 for rung in case.white_box):
            return Observed(measured)
        reason = (
            "the model's output changes from call to call: average over its randomness, as "
            "apgd_ce:samples=20 does"
        )
        return Observed(measured, (Doubt("weak", reason, side),))
    if not case.nets.differentiable:
        return Observed(measured)
    measured["depends_on_neighbours"] = case.depends_on_neighbours
    if not case.depends_on_neighbours or isinstance(getattr(case.model, "model", None), Averaged):
        return Observed(measured)
    reason = "an image's scores depend on the others in its batch, and so does what breaks it"
    return Observed(measured, (Doubt("weak", reason, side),))


def redrawn(case: Case) -> Estimate:
    """Return by how much the number is above the mean over draws, on the ladder's own candidates.

    Below 0 the number is too low: an image counts as broken that was wrong once by chance.
    """
    rows = case.looked_at[case.final.clean_correct[case.looked_at]]
    right = torch.zeros(len(rows), dtype=torch.float64)
    x_adv, y = torch.nan_to_num(case.candidates(rows)), case.y(rows)
    rng = torch.Generator().manual_seed(case.seed)
    for _ in range(REDRAWN):
        order = torch.randperm(len(rows), generator=rng)  # other neighbours each time
        right[order] += (~case.errs(x_adv[order], y[order])).cpu().double() / REDRAWN
    above = np.zeros(len(case.looked_at))
    above[case.final.clean_correct[case.looked_at]] = case.final.robust[rows] - right.numpy()
    return mean(above.tolist(), bounds=(-1, 1))


def outputs_are_logits(case: Case) -> Observed:
    """Probabilities flatten the loss; rounded scores have no gradient."""
    if not case.nets.differentiable:
        return Observed()
    x = case.x(case.probed)
    scores = case.scores(x)
    noise = case.scores(case.noise(case.probed, "cube").uniform(x))
    probabilities = adds_up(scores) or (_within_one(scores) and _within_one(noise))
    values = torch.unique(scores, dim=0)  # the same image twice says nothing
    distinct = torch.unique(values).numel() / values.numel()
    doubts = []
    if probabilities:
        reason = "the model returns probabilities, not logits: its gradients are flattened"
        doubts.append(Doubt("weak", reason))
    if distinct < DISTINCT:
        doubts.append(Doubt("weak", f"only {distinct:.0%} of the scores differ: they are rounded"))
    measured = {"probabilities": probabilities, "distinct_scores": distinct}
    return Observed(measured, tuple(doubts))


def inference_is_plain(case: Case) -> Observed:
    """A model that optimises while it answers moves away from what the attack followed."""
    if not case.nets.differentiable:
        return Observed()
    with torch.no_grad(), _Watch() as watch:
        case.model(case.x(case.probed[:2]))
    if not watch.differentiates:
        return Observed({"optimises": False})
    reason = "the model computes gradients while it answers: it needs an attack of its own"
    return Observed({"optimises": True}, (Doubt("weak", reason),))


def gradients_are_there(case: Case, counters: Counters) -> Observed:
    """Zero or NaN gradients leave a gradient attack without a direction.

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
    if more_than(WITHOUT_GRADIENT, hidden, len(x)):
        reason = f"the gradient is zero or NaN on {masked:.0%} of the images"
        return Observed(measured, (Doubt("not_established", reason),))
    fell = int(counters.continued.fell.sum())
    overstated = case.overstated(fell) > WITHOUT_GRADIENT and fell > 1
    if confident > WITHOUT_GRADIENT and overstated:
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
    undefined = torch.stack([slope.undefined for slope in slopes]).any(0)
    flat = torch.stack([slope.zero for slope in slopes]).all(0) & ~undefined
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
    before = margin(case.scores(x), y)
    stuck = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for length in SHORT_STEPS:
        moved = project(x + length * case.epsilon * direction, x, case.epsilon, case.norm)
        went = (moved != x).flatten(1).any(1)  # some gradients are zero, or lead out of the range
        stuck |= (margin(case.scores(moved), y) <= before) & went
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
    for _ in range(NEARBY_POINTS):
        near = uniform_start(x, NEAR * case.epsilon, case.norm, noise)
        change = (margin(case.scores(near), y) - before).abs()
        changes.append(torch.nan_to_num(change / torch.maximum(before.abs(), near_zero)))
    unstable = float(torch.stack(changes).clamp_max(1).mean())
    measured = {"unstable_predictions": unstable}
    if unstable <= UNSTABLE:
        return Observed(measured)
    reason = f"the margin changes by {unstable:.0%} within a twentieth of epsilon: it is noise"
    return Observed(measured, (Doubt("not_established", reason),))


def adds_up(scores: Tensor) -> bool:
    """Say whether every row is a distribution."""
    return _within_one(scores) and bool((scores.sum(1) - 1).abs().max() < ADDS_UP)


def _within_one(scores: Tensor) -> bool:
    return bool(((scores >= 0) & (scores <= 1)).all())


class _Watch(TorchFunctionMode):
    """Sees whether anybody asks for a gradient."""

    differentiates = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__name__", "") in ("grad", "backward"):
            self.differentiates = True
        return func(*args, **(kwargs or {}))
