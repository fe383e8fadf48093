"""The perturbation sets: how far an adversary may move an image, in each norm.

All tensors are (N, C, H, W) in [0, 1]; epsilon is in pixel units. A step or a projection is
per image. L-infinity and L2 now; another norm is another entry in each of the three tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from purpleteam.attacks.noise import Noise

__all__ = ["Norm", "distance", "project", "steepest", "uniform_start", "whole_cube"]

Norm = Literal["linf", "l2"]


def project(x_adv: Tensor, x: Tensor, epsilon: float, norm: Norm) -> Tensor:
    """Return the candidate moved into the ball around `x` and into [0, 1]."""
    return _PROJECT[norm](x_adv, x, epsilon)


def project_linf(x_adv: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """Return the nearest point of the box of half-width epsilon around `x`, and of [0, 1]."""
    return torch.minimum(torch.maximum(x_adv, x - epsilon), x + epsilon).clamp(0, 1)


def project_l2(x_adv: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """Return the candidate scaled into the sphere of radius epsilon around `x`, then clamped.

    Clamping moves every pixel towards `x`, which is itself in [0, 1], so it cannot leave the
    sphere again.
    """
    perturbation = x_adv - x
    length = _length(perturbation)
    return (x + perturbation * (epsilon / length.clamp_min(1e-12)).clamp_max(1)).clamp(0, 1)


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """Return the step of length 1 in `norm` that climbs fastest; 0 where the gradient is 0."""
    return _STEEPEST[norm](gradient)


def uniform_start(x: Tensor, epsilon: float, norm: Norm, noise: Noise) -> Tensor:
    """Return a uniform point of the ball around each image, clamped to [0, 1]."""
    return _START[norm](x, epsilon, noise).clamp(0, 1)


def distance(x_adv: Tensor, x: Tensor, norm: Norm) -> Tensor:
    """Return the distance of each candidate from its image, in float64, shape (N,)."""
    perturbation = (x_adv.double() - x.double()).flatten(1)
    order = math.inf if norm == "linf" else 2
    length: Tensor = torch.linalg.vector_norm(perturbation, ord=order, dim=1)
    return length


def whole_cube(x: Tensor, norm: Norm) -> float:
    """Return the epsilon at which the ball holds every image there is: no bound at all."""
    return 1.0 if norm == "linf" else math.sqrt(x[0].numel())


def _length(perturbation: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(perturbation.flatten(1), dim=1)
    return length.view(-1, 1, 1, 1)


def _steepest_l2(gradient: Tensor) -> Tensor:
    scale = gradient.flatten(1).abs().amax(1).view(-1, 1, 1, 1)  # keeps tiny gradients from
    gradient = gradient / scale.clamp_min(1e-38)  # vanishing when they are squared
    return gradient / _length(gradient).clamp_min(1e-12)


def _start_linf(x: Tensor, epsilon: float, noise: Noise) -> Tensor:
    return x + epsilon * (2 * noise.uniform(x) - 1)


def _start_l2(x: Tensor, epsilon: float, noise: Noise) -> Tensor:
    direction = _steepest_l2(noise.normal(x))
    share = noise.uniform(x[:, :1, :1, :1]) ** (1 / x[0].numel())  # uniform in volume
    return x + epsilon * share * direction


_PROJECT: dict[Norm, Callable[[Tensor, Tensor, float], Tensor]] = {
    "linf": project_linf,
    "l2": project_l2,
}
_STEEPEST: dict[Norm, Callable[[Tensor], Tensor]] = {"linf": torch.sign, "l2": _steepest_l2}
_START: dict[Norm, Callable[[Tensor, float, Noise], Tensor]] = {
    "linf": _start_linf,
    "l2": _start_l2,
}
