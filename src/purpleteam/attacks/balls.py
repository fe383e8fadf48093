"""The perturbation sets: how far an adversary may move an image, in each norm.

All tensors are (N, C, H, W) in [0, 1]; epsilon is in pixel units, in L0 a number of values. A step
or a projection is per image. Another norm is another entry in each of the tables. `spatial` and
`corruption` name sets that no distance bounds: there a projection is into [0, 1] alone, and the
distance that is told is in L2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from purpleteam.attacks.noise import Noise

__all__ = ["Norm", "distance", "project", "quantise", "steepest", "uniform_start", "whole_cube"]

Norm = Literal["linf", "l2", "l1", "l0", "spatial", "corruption"]
"""The last two are no balls: an attack spans them itself, and epsilon is how far it may go."""

HALVINGS = 40
"""Of the interval in which the threshold of a projection into an L1 ball lies."""
LEVELS = 255
"""Steps between black and white where an image is kept as bytes."""


def project(x_adv: Tensor, x: Tensor, epsilon: float, norm: Norm) -> Tensor:
    """Return the candidate moved into the ball around `x` and into [0, 1]."""
    return _PROJECT[norm](x_adv, x, epsilon)


def project_linf(x_adv: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """Return the nearest point of the box of half-width epsilon around `x`, and of [0, 1]."""
    inside = torch.maximum(x_adv, x - epsilon)
    return torch.minimum(inside, x + epsilon, out=inside).clamp_(0, 1)


def project_l2(x_adv: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """Return the candidate scaled into the sphere of radius epsilon around `x`, then clamped.

    Clamping moves every pixel towards `x`, which is itself in [0, 1], so it cannot leave the
    sphere again.
    """
    perturbation = x_adv - x
    length = _length(perturbation)
    return (x + perturbation * (epsilon / length.clamp_min(1e-12)).clamp_max(1)).clamp(0, 1)


def project_l1(x_adv: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """Return the nearest point of the L1 ball around `x` within [0, 1] (arXiv:2103.01208).

    Every value shrinks by one threshold and stops at the range's edge; the smallest threshold
    that fits is found by halving an interval, and its feasible end is taken.
    """
    perturbation = (x_adv - x).flatten(1)
    size = perturbation.abs()
    room = torch.where(perturbation > 0, 1 - x.flatten(1), x.flatten(1))
    low, high = torch.zeros_like(size[:, :1]), size.amax(1, keepdim=True)
    fits = torch.minimum(size, room).sum(1, keepdim=True) <= epsilon
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        outside = torch.minimum((size - middle).clamp_min(0), room).sum(1, keepdim=True) > epsilon
        low, high = torch.where(outside, middle, low), torch.where(outside, high, middle)
    threshold = torch.where(fits, 0.0, high)
    kept = torch.minimum((size - threshold).clamp_min(0), room) * perturbation.sign()
    return (x + kept.view_as(x)).clamp(0, 1)


def project_l0(x_adv: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """Return the candidate with only its `epsilon` largest changes, within [0, 1]."""
    x_adv = x_adv.clamp(0, 1)
    size = (x_adv - x).flatten(1).abs()
    changed = min(int(epsilon), size.shape[1])
    largest = size.topk(changed, dim=1).indices
    keep = torch.zeros_like(size, dtype=torch.bool).scatter_(1, largest, True)
    return torch.where(keep.view_as(x), x_adv, x)


def project_into_range(x_adv: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """Return the candidate within [0, 1]: its attack alone keeps it in its set."""
    return x_adv.clamp(0, 1)


def quantise(x_adv: Tensor, x: Tensor | None = None) -> Tensor:
    """Return the candidate as it survives being bytes: in steps of 1/255.

    Values are rounded to the nearest step; with the image `x` (itself in such steps) they are
    rounded towards it, so that what lay in a ball around it still does, in every norm.
    """
    if x is None:
        return (x_adv * LEVELS).round() / LEVELS
    start = (x * LEVELS).round()
    change = (x_adv * LEVELS - start).double()
    towards = (change.abs() + 1e-3).floor() * change.sign()  # 1e-3: float32 falls short of a step
    return ((start + towards) / LEVELS).to(x_adv.dtype)


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """Return the step of length 1 in `norm` that climbs fastest; 0 where the gradient is 0."""
    return _STEEPEST[norm](gradient)


def uniform_start(x: Tensor, epsilon: float, norm: Norm, noise: Noise) -> Tensor:
    """Return a uniform point of the ball around each image, clamped to [0, 1]."""
    return _START[norm](x, epsilon, noise).clamp(0, 1)


def distance(x_adv: Tensor, x: Tensor, norm: Norm) -> Tensor:
    """Return the distance of each candidate from its image, in float64, shape (N,)."""
    perturbation = (x_adv.double() - x.double()).flatten(1)
    if norm == "linf":  # many times faster than the norm of infinite order
        return perturbation.abs_().amax(1)
    length: Tensor = torch.linalg.vector_norm(perturbation, ord=_ORDER[norm], dim=1)
    return length


def whole_cube(x: Tensor, norm: Norm) -> float:
    """Return the epsilon at which the ball holds every image there is: no bound at all."""
    return float(x[0].numel()) ** (1 / _ORDER[norm]) if norm != "l0" else float(x[0].numel())


def _length(perturbation: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(perturbation.flatten(1), dim=1)
    return length.view(-1, 1, 1, 1)


def _steepest_l2(gradient: Tensor) -> Tensor:
    scale = gradient.flatten(1).abs().amax(1).view(-1, 1, 1, 1)  # keeps tiny gradients from
    gradient = gradient / scale.clamp_min(1e-38)  # vanishing when they are squared
    return gradient / _length(gradient).clamp_min(1e-12)


def _steepest_l1(gradient: Tensor) -> Tensor:
    flat = gradient.flatten(1)
    largest = flat.abs().argmax(1, keepdim=True)
    step = torch.zeros_like(flat).scatter_(1, largest, flat.gather(1, largest).sign())
    return step.view_as(gradient)


def _start_linf(x: Tensor, epsilon: float, noise: Noise) -> Tensor:
    return x + epsilon * (2 * noise.uniform(x) - 1)


def _start_l2(x: Tensor, epsilon: float, noise: Noise) -> Tensor:
    direction = _steepest_l2(noise.normal(x))
    share = noise.uniform(x[:, :1, :1, :1]) ** (1 / x[0].numel())  # uniform in volume
    return x + epsilon * share * direction


def _start_l1(x: Tensor, epsilon: float, noise: Noise) -> Tensor:
    """Exponential sizes, divided by their sum and one more, are uniform in the ball."""
    sizes = -torch.log1p(-noise.uniform(x))
    more = -torch.log1p(-noise.uniform(x[:, :1, :1, :1]))
    total = sizes.flatten(1).sum(1).view(-1, 1, 1, 1) + more
    signs = torch.where(noise.uniform(x) < 0.5, -1.0, 1.0)
    return x + epsilon * signs * sizes / total


def _start_l0(x: Tensor, epsilon: float, noise: Noise) -> Tensor:
    """Random values at random places, as many as may change."""
    order = noise.uniform(x).flatten(1).argsort(1).argsort(1).view_as(x)
    return torch.where(order < epsilon, noise.uniform(x), x)


_ORDER: dict[Norm, float] = {
    "linf": math.inf,
    "l2": 2,
    "l1": 1,
    "l0": 0,
    "spatial": 2,
    "corruption": 2,
}
_PROJECT: dict[Norm, Callable[[Tensor, Tensor, float], Tensor]] = {
    "linf": project_linf,
    "l2": project_l2,
    "l1": project_l1,
    "l0": project_l0,
    "spatial": project_into_range,
    "corruption": project_into_range,
}
_STEEPEST: dict[Norm, Callable[[Tensor], Tensor]] = {
    "linf": torch.sign,
    "l2": _steepest_l2,
    "l1": _steepest_l1,
    "l0": _steepest_l1,
}
_START: dict[Norm, Callable[[Tensor, float, Noise], Tensor]] = {
    "linf": _start_linf,
    "l2": _start_l2,
    "l1": _start_l1,
    "l0": _start_l0,
}
