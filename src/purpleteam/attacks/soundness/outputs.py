"""What the model answers: random, probabilities, few values, or optimised on the way.

The flags of AutoAttack (Croce and Hein 2020, arXiv:2003.01690).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from purpleteam.attacks.soundness.case import Case
from purpleteam.attacks.soundness.verdict import Direction, Doubt, Observed
from purpleteam.attacks.wrappers import Averaged
from purpleteam.core.statistics import Estimate, mean

ADDS_UP = 1e-3
"""By how much the sum of probabilities may miss 1: what half precision leaves."""

DRAWS = 10
"""Of the answers to each candidate where they change."""

DISTINCT = 0.1
"""Least share of different values among the scores; a net in bfloat16 has over 0.2."""


def answers_are_steady(case: Case) -> Observed:
    """Where outputs are random, a gradient attack has to average over them."""
    measured: dict[str, Any] = {"randomised": case.randomised}
    if case.randomised:
        if case.white_box and all(getattr(one, "samples", 1) > 1 for one in case.white_box):
            return Observed(measured)
        reason = (
            "the model's output changes from call to call: average over its randomness, as "
            "apgd_ce:samples=20 does"
        )
        return Observed(measured, (Doubt("weak", reason, _side(case)),))
    if not case.nets.differentiable:
        return Observed(measured)
    measured["depends_on_neighbours"] = case.depends_on_neighbours
    if not case.depends_on_neighbours or isinstance(getattr(case.model, "model", None), Averaged):
        return Observed(measured)
    reason = "an image's scores depend on the others in its batch, and so does what breaks it"
    return Observed(measured, (Doubt("weak", reason, _side(case)),))


def redrawn(case: Case) -> Estimate:
    """Return by how much the number is above the mean over draws, on the ladder's own candidates.

    Below 0 the number is too low: an image counts as broken that was wrong once by chance.
    """
    rows = case.looked_at[case.final.clean_correct[case.looked_at]]
    right = torch.zeros(len(rows), dtype=torch.float64)
    x_adv, y = torch.nan_to_num(case.candidates(rows)), case.y(rows)
    rng = torch.Generator().manual_seed(case.seed)
    for _ in range(DRAWS):
        order = torch.randperm(len(rows), generator=rng)  # other neighbours each time
        right[order] += (~case.errs(x_adv[order], y[order])).cpu().double() / DRAWS
    above = np.zeros(len(case.looked_at))
    above[case.final.clean_correct[case.looked_at]] = case.final.robust[rows] - right.numpy()
    return mean(above.tolist(), bounds=(-1, 1))


def _side(case: Case) -> Direction:
    """Return where the number may be off to: a lucky draw breaks, a gradient of one misleads."""
    return "either" if case.final.robust.any() else "too_high"


def outputs_are_logits(case: Case) -> Observed:
    """Probabilities flatten the loss; rounded scores have no gradient."""
    if not case.nets.differentiable:
        return Observed()
    x = case.x(case.probed)
    scores = case.scores(x)
    noise = case.scores(case.noise(case.probed, "cube").uniform(x))
    measured: dict[str, Any] = {"probabilities": False}
    doubts: list[Doubt] = []
    if adds_up(scores) or (_within_one(scores) and _within_one(noise)):
        measured["probabilities"] = True
        doubts.append(
            Doubt(
                "weak", "the model returns probabilities, not logits: its gradients are flattened"
            )
        )
    values = torch.unique(scores, dim=0)  # the same image twice says nothing
    distinct = torch.unique(values).numel() / values.numel()
    measured["distinct_scores"] = distinct
    if distinct < DISTINCT:
        doubts.append(Doubt("weak", f"only {distinct:.0%} of the scores differ: they are rounded"))
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
