"""Is this evaluation valid? Checks on the attack, not on the model.

A robust accuracy is an upper bound that a better attack may lower; these checks say when it is
worth nothing. After Carlini et al. 2019 (arXiv:1902.06705), the flags of AutoAttack (Croce and
Hein 2020, arXiv:2003.01690) and the indicators of attack failure (Pintor et al. 2022,
arXiv:2106.09947).

    sound              no check found a reason for doubt
    weak               the number stands, but a stronger attack is likely to lower it
    not_established    the attack had no fair chance; the number must not be quoted
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from purpleteam.attacks.balls import distance, project, steepest, whole_cube
from purpleteam.attacks.evaluate import RobustEvaluation
from purpleteam.attacks.evasion import EvasionAttack
from purpleteam.attacks.evasion.fgsm import FGSM
from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import device_of, frozen, to_batch
from purpleteam.models.inference import Classifier

__all__ = ["Soundness", "judge"]

Level = Literal["sound", "weak", "not_established"]

PROBED = 100
"""Images that the checks which attack anew are made on: the first ones, right when clean."""

ROUNDING = 1e-6
"""What float32 may add to a distance; measured in float64."""

SHORT_STEPS = (1 / 40, 1 / 20, 1 / 10)
"""Lengths, as shares of epsilon, at which a step along the gradient must raise the loss."""

STRAY = 0.05
"""Share of images on the very edge, which a weaker attack may break by luck."""


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


@dataclass(frozen=True, eq=False)
class _Case:
    """What every check looks at."""

    model: Classifier
    images: ImageSet
    attacks: Sequence[EvasionAttack]
    evaluations: Sequence[RobustEvaluation]  # by growing epsilon
    seed: int

    @property
    def final(self) -> RobustEvaluation:
        return self.evaluations[-1]

    @property
    def probed(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.final.clean_correct)[:PROBED]


Doubt = tuple[Level, str]


def judge(
    model: Classifier,
    images: ImageSet,
    attacks: Sequence[EvasionAttack],
    evaluations: Sequence[RobustEvaluation],
    *,
    seed: int = 0,
) -> Soundness:
    """Judge the evaluations (one for each epsilon, growing) of one ladder on one model."""
    case = _Case(model, images, attacks, evaluations, seed)
    measured: dict[str, Any] = {}
    doubts: list[Doubt] = []
    if len(case.probed) == 0:
        return Soundness(
            verdict="not_established",
            reasons=("no image is right when clean: there is nothing to attack",),
            checks={},
        )
    with frozen(model):
        for check in CHECKS_OF_EVALUATION:
            for doubt in check(case, measured):
                doubts.append(doubt)  # noqa: PERF402  (generators also fill `measured`)
    levels = [level for level, _ in doubts]
    verdict: Level = "sound"
    if levels:
        verdict = "not_established" if "not_established" in levels else "weak"
    return Soundness(
        verdict=verdict, reasons=tuple(reason for _, reason in doubts), checks=measured
    )


def _gradients_are_of_use(case: _Case, measured: dict[str, Any]) -> Iterator[Doubt]:
    """Zero or NaN gradients leave a gradient attack blind."""
    x = to_batch(case.images.images[case.probed], device_of(case.model)).requires_grad_(True)
    y = torch.from_numpy(case.images.labels[case.probed]).to(x.device)
    logits = case.model(x)
    if not logits.requires_grad:
        measured["zero_gradients"] = 1.0
        yield "not_established", "the model's output does not depend on its input by gradients"
        return
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits.float(), y, reduction="sum"), x)
    blind = ~torch.isfinite(gradient).flatten(1).all(1) | (gradient.flatten(1).abs().amax(1) == 0)
    share = float(blind.float().mean())
    measured["zero_gradients"] = share
    if share > 0.05:
        yield "not_established", f"the gradient is zero or NaN on {share:.0%} of the images"


def _outputs_are_logits(case: _Case, measured: dict[str, Any]) -> Iterator[Doubt]:
    """Probabilities flatten the loss; outputs that change from call to call are random."""
    x = to_batch(case.images.images[case.probed], device_of(case.model))
    with torch.no_grad():
        first, second = case.model(x).float(), case.model(x).float()
    randomised = not torch.equal(first, second)
    total = first.sum(1)
    probabilities = bool(((first >= 0) & (first <= 1)).all() and (total - 1).abs().max() < 1e-3)
    measured |= {"randomised": randomised, "probabilities": probabilities}
    if randomised:
        yield "weak", "the model's output changes from call to call: average over its randomness"
    if probabilities:
        yield "weak", "the model returns probabilities, not logits: its gradients are flattened"


def _steps_climb(case: _Case, measured: dict[str, Any]) -> Iterator[Doubt]:
    """A short step along the gradient must raise the loss; where it does not, gradients mislead.

    Shattered, reversed or random gradients are neither zero nor NaN, and the images that they
    protect fall to any attack that does not follow them (Athalye et al. 2018, arXiv:1802.00420).
    """
    norm, epsilon = case.attacks[-1].norm, case.attacks[-1].epsilon
    if measured["randomised"] or epsilon == 0:
        return
    x = to_batch(case.images.images[case.probed], device_of(case.model)).requires_grad_(True)
    y = torch.from_numpy(case.images.labels[case.probed]).to(x.device)
    before = F.cross_entropy(case.model(x).double(), y, reduction="none")
    if not before.requires_grad:
        return
    (gradient,) = torch.autograd.grad(before.sum(), x)
    climbed = torch.ones_like(before, dtype=torch.bool)
    with torch.no_grad():
        for share in SHORT_STEPS:
            step = share * epsilon * steepest(torch.nan_to_num(gradient), norm)
            after = case.model(project(x + step, x, epsilon, norm)).double()
            climbed &= F.cross_entropy(after, y, reduction="none") > before
    stuck = 1 - float(climbed.float().mean())
    measured["steps_that_do_not_climb"] = stuck
    if stuck > 0.05:
        level: Level = "weak" if stuck <= 0.2 else "not_established"
        yield level, f"a short step along the gradient raises no loss on {stuck:.0%} of the images"


def _candidates_are_feasible(case: _Case, measured: dict[str, Any]) -> Iterator[Doubt]:
    """Inside ball and range in float64, after a round trip through a file."""
    worst = 0.0
    for evaluation in case.evaluations:
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, x_adv=evaluation.x_adv)
        file.seek(0)
        x_adv = torch.from_numpy(np.load(file, allow_pickle=False)["x_adv"])
        x = torch.from_numpy(case.images.images / np.float32(255))
        row = evaluation.attacks[-1]
        beyond = distance(x_adv, x, case.attacks[-1].norm) - row.epsilon
        outside = torch.maximum(-x_adv, x_adv - 1).amax()
        if not torch.isfinite(x_adv).all():
            yield "not_established", "an adversarial example holds NaN or infinity"
        worst = max(worst, float(beyond.max()), float(outside))
    measured["beyond_ball_or_range"] = max(worst, 0.0)
    if worst > ROUNDING:
        yield "not_established", f"an adversarial example leaves its ball or range by {worst:.2g}"


def _single_step_is_not_stronger(case: _Case, measured: dict[str, Any]) -> Iterator[Doubt]:
    """A weak attack that breaks what the ladder left standing betrays masked gradients."""
    fgsm = FGSM(norm=case.attacks[-1].norm, epsilon=case.attacks[-1].epsilon)
    standing = case.probed[case.final.robust[case.probed]]
    fell = int(_broken(case, fgsm, standing).sum())
    measured["broken_by_fgsm_only"] = fell
    if fell:
        level: Level = "weak" if fell <= STRAY * len(case.probed) else "not_established"
        yield level, f"a single step breaks {fell} images that the ladder left standing"


def _stronger_with_epsilon(case: _Case, measured: dict[str, Any]) -> Iterator[Doubt]:
    """A larger ball holds the smaller: robust accuracy must not grow with epsilon."""
    values = [evaluation.robust_accuracy.value for evaluation in case.evaluations]
    rise = max((after - before for before, after in itertools.pairwise(values)), default=0)
    measured["largest_rise_over_epsilon"] = max(rise, 0.0)
    if rise > 0.01:
        yield "not_established", f"robust accuracy grows by {rise:.1%} with a larger epsilon"


def _unbounded_breaks_everything(case: _Case, measured: dict[str, Any]) -> Iterator[Doubt]:
    """With no bound at all every image can be turned into any other."""
    last = case.attacks[-1]
    x = to_batch(case.images.images[:1])
    unbounded = PGD(norm=last.norm, epsilon=whole_cube(x, last.norm), steps=40)
    rows = case.probed
    left = int((~_broken(case, unbounded, rows)).sum())
    measured["survived_unbounded"] = left
    if left:
        yield (
            "not_established",
            f"an unbounded attack leaves {left} of {len(rows)} images: the gradients are masked",
        )


def _ladder_is_strong(case: _Case, measured: dict[str, Any]) -> Iterator[Doubt]:
    """A few steps are no strong attack."""
    steps = max(attack.planned_steps for attack in case.attacks)
    measured["most_steps"] = steps
    if steps < 10 and case.final.robust_accuracy.value > 0:
        yield "weak", f"the strongest attack takes {steps} step(s); an iterative one is stronger"


CHECKS_OF_EVALUATION: tuple[Callable[[_Case, dict[str, Any]], Iterator[Doubt]], ...] = (
    _gradients_are_of_use,
    _outputs_are_logits,
    _steps_climb,
    _candidates_are_feasible,
    _single_step_is_not_stronger,
    _stronger_with_epsilon,
    _unbounded_breaks_everything,
    _ladder_is_strong,
)


def _broken(case: _Case, attack: EvasionAttack, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    if len(rows) == 0:
        return np.zeros(0, np.bool_)
    x = to_batch(case.images.images[rows], device_of(case.model))
    y = torch.from_numpy(case.images.labels[rows]).to(x.device)
    attack = replace(attack)
    broken = attack.run(case.model, x, y, seed=case.seed, index=torch.from_numpy(rows)).broken
    return np.asarray(broken.cpu().numpy())
