"""Auto-PGD: gradient ascent that finds its own step sizes.

Croce & Hein 2020 (arXiv:2003.01690), Algorithm 1, for L-infinity and L2; in L1 with sparse steps,
Croce & Hein 2021 (arXiv:2103.01208). Every decision is made for each image on its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Literal

import torch
from torch import Tensor

from purpleteam.attacks.driver import Loss, cross_entropy, dlr, targeted_dlr, targeted_margin
from purpleteam.attacks.evasion import ATTACKS, Driver, GradientAttack, Noise, part_of
from purpleteam.attacks.norms import CONVEX, NORMS, column, project, steepest
from purpleteam.core.errors import UsageError

MOMENTUM = 0.75  # share of the new direction in a step; the rest goes on as the step before

Point = tuple[Tensor, Tensor, Tensor]  # candidates (N, C, H, W), their losses (N,), the gradients
Ask = Callable[[Tensor], Point]


@dataclass(frozen=True, kw_only=True)
class AutoPGD(GradientAttack):
    """Halves the step of an image whose loss no longer rises, and goes back to its best point."""

    norms = CONVEX
    ranges = "rho from 0 to 1"

    steps: int = 100
    """Number of gradient steps; when step sizes are reviewed depends on it."""
    restarts: int = 1
    """Independent starts for each image that still stands."""
    rho: float = 0.75
    """Share of the steps between two reviews that must raise the loss, or the step is halved."""
    large_start: bool = False
    """L1: take the first steps in balls of three and two times epsilon."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.large_start and not NORMS[self.norm].sparse:
            raise ValueError(f"large_start is defined in l1 alone, not in {self.norm}")

    def climb(
        self, driver: Driver, x: Tensor, noise: Noise, loss: Loss, *per_image: Tensor
    ) -> Tensor:
        """Return the candidates of the highest loss that one run from a random start meets."""

        def ask(x_adv: Tensor) -> Point:
            return x_adv, *driver.value_and_gradient(x_adv, loss, *per_image)

        climb = self._ascend_sparse if NORMS[self.norm].sparse else self._ascend
        return climb(driver, ask, x, NORMS[self.norm].rim(x, self.epsilon, noise))

    def _needs(self, least: int, classes: int, instead: str) -> None:
        if classes < least:
            raise UsageError(
                f"{self.name}: its loss needs at least {least} classes, the model has {classes}; "
                f"try {instead}"
            )

    def _balls(self) -> list[tuple[float, int]]:
        """Return the balls that a sparse run goes through, each with its number of steps."""
        early = ceil(0.3 * self.steps)
        if not self.large_start or 2 * early >= self.steps:
            return [(self.epsilon, self.steps)]
        last = self.steps - 2 * early
        return [(3 * self.epsilon, early), (2 * self.epsilon, early), (self.epsilon, last)]

    def _ascend(self, driver: Driver, ask: Ask, x: Tensor, x_adv: Tensor) -> Tensor:
        """Climb from `x_adv` and return the best points (algorithm 1)."""
        low, high = (x - self.epsilon).clamp_(0, 1), (x + self.epsilon).clamp_(0, 1)

        def inside(candidate: Tensor) -> Tensor:
            if self.norm == "linf":  # in place, as the ball is a box
                return candidate.clamp_(low, high)
            return project(candidate, x, self.epsilon, self.norm)

        x_adv, value, gradient = ask(x_adv)
        best = x_adv.clone(), value.nan_to_num(nan=-torch.inf), gradient.clone()
        step_size = torch.full_like(value, 2 * self.epsilon)
        halved, known = torch.zeros_like(value, dtype=torch.bool), best[1].clone()
        previous, rises, reviewed = x_adv, torch.zeros_like(value), 0
        reviews = _reviews(self.steps)
        for step in range(1, self.steps + 1):
            if not driver.standing.any():
                break
            # z = P(x + size s(gradient)), and then P(x + m (z - x) + (1 - m) (x - previous))
            z = inside(steepest(gradient, self.norm).mul_(column(step_size)).add_(x_adv))
            if step > 1:
                momentum = (x_adv - previous).mul_(1 - MOMENTUM)
                z = inside(x_adv.lerp(z, MOMENTUM).add_(momentum))
            previous, before = x_adv, value
            x_adv, value, gradient = ask(z)  # (N, C, H, W)
            rises += value > before
            _keep_better(best, x_adv, value, gradient)
            if step in reviews:
                seldom = rises < self.rho * (step - reviewed)  # condition 1
                stuck = ~halved & (best[1] <= known)  # condition 2
                halved, known = seldom | stuck, best[1].clone()
                step_size = torch.where(halved, step_size / 2, step_size)
                x_adv, value, gradient = _back(halved, best, x_adv, value, gradient)
                rises, reviewed = torch.zeros_like(rises), step
        return best[0]

    def _ascend_sparse(self, driver: Driver, ask: Ask, x: Tensor, x_adv: Tensor) -> Tensor:
        """Climb along the `kept` largest slopes, fewer of them the sparser the best point."""
        changed = _changed(x_adv, x) if self.large_start else None  # (N,): values that differ
        for epsilon, steps in self._balls():
            x_adv, value, gradient = ask(project(x_adv, x, epsilon, self.norm))
            best = x_adv.clone(), value.nan_to_num(nan=-torch.inf), gradient.clone()
            everything = torch.full_like(value, x[0].numel())
            kept = everything / 5 if changed is None else changed / 1.5
            changed = everything if changed is None else changed
            step_size = torch.full_like(value, epsilon)
            for step in range(1, steps + 1):
                if not driver.standing.any():
                    break
                move = column(step_size) * _sparse(gradient, kept)
                x_adv, value, gradient = ask(project(x_adv + move, x, epsilon, self.norm))
                _keep_better(best, x_adv, value, gradient)
                if step % max(int(0.04 * steps), 1) == 0:
                    before, changed = changed, _changed(best[0], x)
                    sparser, kept = changed < 0.95 * before, changed / 1.5
                    shorter = (step_size / 1.5).clamp_min(epsilon / 10)
                    step_size = torch.where(sparser, torch.full_like(shorter, epsilon), shorter)
                    x_adv, value, gradient = _back(sparser, best, x_adv, value, gradient)
            x_adv, changed = best[0], _changed(best[0], x)
        return x_adv


@part_of(ATTACKS, "apgd_ce")
class APGDCE(AutoPGD):
    """Auto-PGD on the cross-entropy (Croce & Hein 2020, arXiv:2003.01690)."""

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        return self.climb(driver, x, noise, cross_entropy)


@part_of(ATTACKS, "apgd_dlr")
class APGDDLR(AutoPGD):
    """Auto-PGD on the differences of logits ratio (Croce & Hein 2020, arXiv:2003.01690)."""

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        self._needs(3, driver.classes, "apgd_ce, or apgd_t:loss=margin")
        return self.climb(driver, x, noise, dlr)


@part_of(ATTACKS, "apgd_t")
class APGDT(AutoPGD):
    """Targeted Auto-PGD: one wrong class after the other (Croce & Hein 2020, arXiv:2003.01690)."""

    ranges = "targets at least 1"

    targets: int = 9
    """Most wrong classes that are aimed at, the likeliest first."""
    loss: Literal["dlr", "margin"] = "dlr"
    """What is climbed; the ratio `dlr` needs 4 classes, the margin of the target none."""

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        loss = targeted_margin
        if self.loss == "dlr":
            loss = targeted_dlr
            self._needs(4, driver.classes, f"{self.name}:loss=margin")
        wrong = driver.logits(x).scatter(1, driver.y.unsqueeze(1), -torch.inf)
        x_adv = x
        for target_label in wrong.topk(min(self.targets, driver.classes - 1)).indices.unbind(1):
            if not driver.standing.any():
                break
            x_adv = self.climb(driver, x, noise, loss, target_label)
        return x_adv


def _keep_better(best: Point, *point: Tensor) -> None:
    """Take over, image by image, what has a higher loss than the best so far."""
    better = (point[1] > best[1]).nonzero().flatten()
    for kept, new in zip(best, point, strict=True):
        kept[better] = new[better]


def _back(rows: Tensor, best: Point, x_adv: Tensor, value: Tensor, gradient: Tensor) -> Point:
    """Return the point, with that of the best in `rows` (N,) bool."""
    return (
        torch.where(column(rows), best[0], x_adv),
        torch.where(rows, best[1], value),
        torch.where(column(rows), best[2], gradient),
    )


def _reviews(steps: int) -> frozenset[int]:
    """Return the steps after which step sizes are reviewed: at first seldom, then often."""
    at, gap, reviews = 22, 22, set()  # in hundredths of the steps
    while at <= 100:
        reviews.add(ceil(at * steps / 100))
        gap = max(gap - 3, 6)
        at += gap
    return frozenset(reviews)


def _sparse(gradient: Tensor, kept: Tensor) -> Tensor:
    """Return the step of L1 length 1 that moves the `kept` (N,) largest slopes by equal amounts."""
    size = gradient.flatten(1).abs()
    count = kept.round().long().clamp(1, size.shape[1])
    largest = size.topk(int(count.max()), dim=1).values
    threshold = largest.gather(1, count.unsqueeze(1) - 1)
    signs = torch.where(size >= threshold, gradient.flatten(1).sign(), 0)
    return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1)).view_as(gradient)


def _changed(x_adv: Tensor, x: Tensor) -> Tensor:
    """Return in how many values each candidate differs from its image, (N,)."""
    return (x_adv != x).flatten(1).sum(1).to(x.dtype)
