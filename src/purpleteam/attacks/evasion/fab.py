"""Fast adaptive boundary attack (Croce and Hein 2020, arXiv:1907.02044)."""

from collections.abc import Iterable, Sequence
from math import isfinite

import torch
from torch import Tensor

from purpleteam.attacks.driver import margin
from purpleteam.attacks.evasion import ATTACKS, Driver, MinimumNormAttack, Noise, part_of
from purpleteam.attacks.evasion import _hyperplane as hyperplane
from purpleteam.attacks.norms import NORMS, column, uniform_start

START: dict[str, float] = {"linf": 0.3, "l2": 1.0, "l1": 5.0}
"""Radius of the ball of which a restart takes half, where no epsilon bounds the search."""
CACHED_VALUES = 25_088  # pixels that are worked on at a time on a processor: 32 images of 28 x 28
FINAL_STEPS = 3  # steps of the search on the line between the image and the nearest example


@part_of(ATTACKS, "fab")
class FAB(MinimumNormAttack):
    """Steps onto the linearised boundary, drawn towards the image, and back whenever it crosses."""

    norms = ("linf", "l2", "l1")
    ranges = (
        "bias from 0 to 1; backward between 0 and 1; overshoot at least 1 and under 2; "
        "candidates at least 2"
    )

    steps: int = 100
    """Number of steps, for each target where there are targets."""
    restarts: int = 1
    """Independent starts: the image itself, then random points around it."""
    candidates: int = 10
    """Classes whose boundaries are considered, the label among them."""
    bias: float = 0.1
    """Largest share of a step that is taken from the image rather than from the last point."""
    overshoot: float = 1.05
    """Length of a step beside that to the linearised boundary."""
    backward: float = 0.9
    """Share of the distance from the image that is left after the boundary was crossed."""

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        others = hyperplane.other_classes(driver, x, self.candidates - 1)
        for group in self.groups(others):
            self._approach(driver, x, noise, group)
        return _final_search(driver, x)

    def groups(self, others: Sequence[Tensor]) -> Iterable[Sequence[Tensor]]:
        """Return the classes (N,) of each search, of which the nearest boundary is approached."""
        return (others,)

    def _approach(self, driver: Driver, x: Tensor, noise: Noise, others: Sequence[Tensor]) -> None:
        x_adv = x
        if noise.restart > 0:
            radius = self.epsilon if isfinite(self.epsilon) else START[self.norm]
            x_adv = uniform_start(x, radius / 2, self.norm, noise)
        count = max(len(x), 1) if x.is_cuda else max(1, CACHED_VALUES // x[0].numel())
        for _ in range(self.steps):
            if not driver.standing.any():
                return
            plane = hyperplane.meeting(driver, others, self.norm, x_adv)
            parts = (torch.split(tensor, count) for tensor in (x_adv, x, *plane))
            x_adv = torch.cat([self._onto(*part) for part in zip(*parts, strict=True)])
            crossed = driver.logits(x_adv).argmax(1) != driver.y
            x_adv = torch.lerp(x, x_adv, column(torch.where(crossed, self.backward, 1.0)))

    def _onto(self, x_adv: Tensor, x: Tensor, value: Tensor, normal: Tensor) -> Tensor:
        points = torch.stack((x_adv, x)).flatten(2)  # (2, N, D)
        flat = normal.flatten(1)
        values = torch.stack((value, value - ((points[0] - points[1]) * flat).sum(1)))
        nearest = hyperplane.nearest_on(points, flat, values, self.norm)
        step, pull = (nearest - points).view(2, *x.shape)
        far, near = map(NORMS[self.norm].length, (step, pull))
        bias = column(far / (far + near).clamp_min(1e-12)).clamp_max(self.bias)
        onto, drawn = x_adv + self.overshoot * step, x + self.overshoot * pull
        return torch.lerp(onto, drawn, bias).clamp_(0, 1)


@part_of(ATTACKS, "fab_t")
class FABT(FAB):
    """FAB towards one class after the other: what AutoAttack runs (arXiv:2003.01690)."""

    candidates: int = 10
    """Classes, the label among them; each of the others is a target, the likeliest first."""

    def groups(self, others: Sequence[Tensor]) -> Iterable[Sequence[Tensor]]:
        return ((target_label,) for target_label in others)


def _final_search(driver: Driver, x: Tensor) -> Tensor:
    """Return the nearest examples, moved on their lines to the images as far as they may."""

    def lead(x_adv: Tensor) -> Tensor:
        return margin(driver.logits(x_adv), driver.y)

    inner, outer = x, driver.nearest.clone()
    low, high = lead(inner), lead(outer)
    for _ in range(FINAL_STEPS):
        share = (-low / (high - low).clamp_min(1e-30)).clamp(0, 1)  # where a straight line is 0
        share = share + 0.1 * (1 - share)  # a little beyond, or rounding says on which side it is
        middle = torch.lerp(inner, outer, column(share))
        value = lead(middle)
        errs = value > 0
        low, high = torch.where(errs, low, value), torch.where(errs, value, high)
        inner = torch.where(column(errs), inner, middle)
        outer = torch.where(column(errs), middle, outer)
    return outer
