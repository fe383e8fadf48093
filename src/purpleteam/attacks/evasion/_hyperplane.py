"""A classifier seen as linear around a point: where two classes meet is a hyperplane.

`meeting` asks the model for that hyperplane; `nearest_on` goes to the nearest point of it within
[0, 1], in each norm, which is the step of DeepFool and of FAB (arXiv:1907.02044, section 2.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from purpleteam.attacks.balls import Norm, uniform_start
from purpleteam.attacks.driver import Driver
from purpleteam.attacks.losses import targeted_margin
from purpleteam.attacks.noise import Noise

__all__ = [
    "how_far",
    "in_cache",
    "length",
    "meeting",
    "nearest_boundary",
    "nearest_meeting",
    "nearest_on",
    "other_classes",
]

ROUNDS = 50
"""Newton steps at most; each fills at least one more value, and some six fill all that must be."""
BEYOND = 1.02
"""How far the start of a search goes, beside the way to the linearised boundary."""
NEARBY = 0.05
"""How far from the image, in each value, the random point is from which a boundary is seen."""
CACHED_VALUES = 25_088
"""Pixel values that are worked on at a time on a processor: 32 images of 28 x 28."""
HALVINGS = 30
"""Of the interval in which the smallest slope that is used in L1 lies."""
DUAL: dict[Norm, Norm] = {"linf": "l1", "l2": "l2", "l1": "linf"}
"""The norm that measures gradients where steps are measured in the key."""


def length(perturbation: Tensor, norm: Norm) -> Tensor:
    """Return the length of each perturbation, (N,), in its own precision."""
    flat = perturbation.flatten(1)
    if norm == "linf":
        return flat.abs().amax(1)
    if norm == "l0":
        return flat.count_nonzero(1).to(flat.dtype)
    found: Tensor = flat.abs().sum(1) if norm == "l1" else flat.norm(p=2, dim=1)
    return found


def in_cache(x: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield rows of per-image tensors, as many at a time as the processor's cache holds."""
    count = len(x) if x.is_cuda else max(1, CACHED_VALUES // x[0].numel())
    yield from zip(*(torch.split(tensor, count) for tensor in (x, *others)), strict=True)


def other_classes(driver: Driver, x: Tensor, most: int) -> Iterator[Tensor]:
    """Yield at most so many classes other than the label, each (N,), the likeliest first."""
    scores = driver.logits(x).scatter(1, driver.y[:, None], -torch.inf)
    order = scores.argsort(dim=1, descending=True, stable=True)
    yield from order[:, : min(most, driver.classes - 1)].unbind(1)


def meeting(driver: Driver, other: Tensor, x_adv: Tensor) -> tuple[Tensor, Tensor]:
    """Return the hyperplane on which two classes meet by the slope at `x_adv`.

    As the lead (N,) of the other class at `x_adv` and its gradient, the normal (N, C, H, W).
    """
    return driver.value_and_gradient(x_adv, targeted_margin, other)


def how_far(value: Tensor, normal: Tensor, norm: Norm) -> Tensor:
    """Return how far the hyperplane is, (N,), were there no range."""
    return value.abs() / length(normal, DUAL[norm]).clamp_min(1e-30)


def nearest_meeting(
    driver: Driver, others: list[Tensor], norm: Norm, x_adv: Tensor
) -> tuple[Tensor, Tensor]:
    """Return, of the hyperplanes on which the label meets the others, the nearest one."""
    value, normal = meeting(driver, others[0], x_adv)
    away = how_far(value, normal, norm)
    for other in others[1:]:
        next_value, next_normal = meeting(driver, other, x_adv)
        next_away = how_far(next_value, next_normal, norm)
        nearer = next_away < away
        value, away = torch.where(nearer, next_value, value), torch.where(nearer, next_away, away)
        normal[nearer] = next_normal[nearer]
    return value, normal


def nearest_boundary(
    driver: Driver, x: Tensor, candidates: int, norm: Norm, noise: Noise | None = None
) -> Tensor:
    """Return the nearest point just beyond the label's boundary, by the slopes near `x`.

    The best start for a search that follows one wrong class to its boundary and never sees that
    another's is nearer.

    Args:
        driver: asked once for each class.
        x: (N, C, H, W), the images.
        candidates: classes that are compared, the label among them; with 1, `x` is returned.
        norm: in which "nearest" is meant.
        noise: looks from a random point nearby: hardened nets are flat at the image itself.
    """
    beyond = 1.0 if norm == "l0" else BEYOND  # a value that moves at all moves beyond
    nearest, shortest = x, torch.full((len(x),), torch.inf, device=x.device)
    seen_from = x if noise is None else uniform_start(x, NEARBY, "linf", noise)
    for other in list(other_classes(driver, x, candidates - 1)):
        value, normal = meeting(driver, other, seen_from)
        here = value - ((seen_from - x) * normal).flatten(1).sum(1)  # the lead at x, by the slope
        value = beyond * torch.where(here < 0, here, value)
        point = nearest_on(x.flatten(1), normal.flatten(1), value, norm).view_as(x)
        away = length(point - x, norm)
        nearest = torch.where((away < shortest).view(-1, 1, 1, 1), point, nearest)
        shortest = torch.minimum(away, shortest)
    return nearest


def nearest_on(points: Tensor, normal: Tensor, value: Tensor, norm: Norm) -> Tensor:
    """Return the points of [0, 1] on the hyperplane that are nearest to `points`.

    Where the hyperplane misses the cube, the corner nearest to it is returned.

    Args:
        points: (..., N, D) in [0, 1].
        normal: (N, D), of the hyperplane of each image.
        value: (..., N), of the function that is 0 on the hyperplane, at `points`.
        norm: in which "nearest" is meant.
    """
    size = normal.abs()
    largest = size.amax(-1, keepdim=True).clamp_min(1e-30)
    size, reach = size / largest, value.abs().unsqueeze(-1) / largest
    uphill = value.sign().unsqueeze(-1) * normal.sign()
    room = uphill * (points - 0.5) + 0.5  # how far each value can go against it: x or 1 - x
    return (points - uphill * _MOVE[norm](size, room, reach)).clamp_(0, 1)


def _move_linf(size: Tensor, room: Tensor, reach: Tensor) -> Tensor:
    """Every value moves by one length, or by all the room it has.

    However small its slope: it costs nothing, and from there the slope may be another.
    """
    return torch.minimum(_stretch(size, size * room, room, reach), room)


def _move_l2(size: Tensor, room: Tensor, reach: Tensor) -> Tensor:
    """Every value moves in proportion to its slope, or by all the room it has."""
    until_full = room / size.clamp_min(1e-30)
    return torch.minimum(_stretch(size * size, size * room, until_full, reach) * size, room)


def _move_l1(size: Tensor, room: Tensor, reach: Tensor) -> Tensor:
    """Values move by all the room they have, the steepest first; the last ones share the rest."""
    gain = size * room
    low, high = torch.zeros_like(reach), torch.ones_like(reach)  # of the slopes that are used
    used = torch.empty_like(room)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        torch.gt(size, middle, out=used)
        enough = (used.mul_(gain)).sum(-1, keepdim=True) >= reach
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    first = torch.gt(size, high, out=used).clone()
    last = torch.gt(size, low, out=used) - first
    rest = reach - (gain * first).sum(-1, keepdim=True)
    share = rest / (gain * last).sum(-1, keepdim=True).clamp_min(1e-30)
    return room * (first + last * share.clamp(0, 1))


def _move_l0(size: Tensor, room: Tensor, reach: Tensor) -> Tensor:
    """As few values as can move by all the room they have, those that gain most."""
    gain, order = (size * room).sort(dim=-1, descending=True, stable=True)
    before = gain.cumsum(-1) - gain
    return room * torch.zeros_like(room).scatter(-1, order, (before < reach).to(room.dtype))


def _stretch(slope: Tensor, fill: Tensor, until_full: Tensor, reach: Tensor) -> Tensor:
    """Return how far all must stretch, (..., N, 1), so that what they gain adds up to `reach`.

    Each gains in proportion to `slope` until it is full, and then stays at `fill`. The sum is
    concave in the stretch, so Newton's method climbs to the answer from below and, the sum being
    piecewise linear, reaches it exactly.
    """
    stretch = torch.zeros_like(reach)
    free, part = torch.empty_like(fill), torch.empty_like(fill)  # used again and again
    whole = fill.sum(-1, keepdim=True)
    for _ in range(ROUNDS):
        torch.gt(until_full, stretch, out=free)
        gained = whole - torch.mul(fill, free, out=part).sum(-1, keepdim=True)
        slopes = torch.mul(slope, free, out=part).sum(-1, keepdim=True)
        further = ((reach - gained) / slopes).clamp_(0, 1e30)
        further = torch.where(slopes > 0, further, stretch)  # all full: the corner
        if torch.equal(further, stretch):
            break
        stretch = further
    return stretch


_MOVE: dict[Norm, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "linf": _move_linf,
    "l2": _move_l2,
    "l1": _move_l1,
    "l0": _move_l0,
}
