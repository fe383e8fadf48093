"""A classifier seen as linear around a point: where two classes meet is a hyperplane.

`meeting` asks the model for the nearest such hyperplane; `nearest_on` goes to the nearest point of
it within [0, 1], which is the step of DeepFool and of FAB (arXiv:1907.02044, section 2.2).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from purpleteam.attacks.driver import targeted_margin
from purpleteam.attacks.evasion import Driver, Noise
from purpleteam.attacks.norms import NORMS, column, uniform_start

BEYOND = 1.02  # how far the start of a search goes, beside the way to the linearised boundary
NEARBY = 0.05  # how far, in each value, the random point is from which a boundary is seen


def other_classes(driver: Driver, x: Tensor, most: int) -> tuple[Tensor, ...]:
    """Return at most `most` classes other than the label, each (N,), the likeliest first."""
    scores = driver.logits(x).scatter(1, driver.y[:, None], -torch.inf)
    order = scores.argsort(dim=1, descending=True, stable=True)
    return tuple(order[:, : min(most, driver.classes - 1)].unbind(1))


def how_far(value: Tensor, normal: Tensor, norm: str) -> Tensor:
    """Return how far the hyperplane is, (N,), were there no range."""
    return value.abs() / NORMS[norm].dual_length(normal).clamp_min(1e-30)


def meeting(
    driver: Driver, others: Sequence[Tensor], norm: str, x_adv: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the nearest hyperplane on which the label meets one of the other classes.

    That is the lead (N,) of the class at `x_adv` and its gradient, the normal (N, C, H, W).
    """
    value, normal = driver.value_and_gradient(x_adv, targeted_margin, others[0])
    away = how_far(value, normal, norm)
    for other in others[1:]:
        lead, slope = driver.value_and_gradient(x_adv, targeted_margin, other)
        length = how_far(lead, slope, norm)
        nearer = length < away
        value, away = torch.where(nearer, lead, value), torch.where(nearer, length, away)
        normal[nearer] = slope[nearer]
    return value, normal


def nearest_boundary(
    driver: Driver, x: Tensor, candidates: int, norm: str, noise: Noise | None = None
) -> Tensor:
    """Return the nearest point just beyond the label's boundary, by the slopes near `x`.

    The start for a search that never sees that another class is nearer. Of the `candidates` the
    label is one: with 1, `x` is returned. With `noise` it looks from a random point nearby:
    hardened nets are flat at the image.
    """
    beyond = BEYOND if NORMS[norm].convex else 1.0  # in l0 a value that moves at all moves beyond
    nearest, shortest = x, torch.full((len(x),), torch.inf, device=x.device)
    seen_from = x if noise is None else uniform_start(x, NEARBY, "linf", noise)
    for other in other_classes(driver, x, candidates - 1):
        value, normal = meeting(driver, (other,), norm, seen_from)
        here = value - ((seen_from - x) * normal).flatten(1).sum(1)  # the lead at x, by the slope
        value = beyond * torch.where(here < 0, here, value)
        point = nearest_on(x.flatten(1), normal.flatten(1), value, norm).view_as(x)
        away = NORMS[norm].length(point - x)
        nearest = torch.where(column(away < shortest), point, nearest)
        shortest = torch.minimum(away, shortest)
    return nearest


def nearest_on(points: Tensor, normal: Tensor, value: Tensor, norm: str) -> Tensor:
    """Return the points of [0, 1] on the hyperplane that are nearest to `points` in `norm`.

    Where it misses the cube, the corner nearest to it. The `points` are (..., N, D) in [0, 1], the
    hyperplane of each image has a `normal` (N, D) and a `value` (..., N) at the points.
    """
    size = normal.abs()
    largest = size.amax(-1, keepdim=True).clamp_min(1e-30)
    size, reach = size / largest, value.abs().unsqueeze(-1) / largest
    uphill = value.sign().unsqueeze(-1) * normal.sign()
    room = uphill * (points - 0.5) + 0.5  # how far each value can go against it: x or 1 - x
    return (points - uphill * NORMS[norm].onto_plane(size, room, reach)).clamp_(0, 1)
