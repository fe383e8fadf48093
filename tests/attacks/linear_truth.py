"""Linear nets, and how far the nearest adversarial example of one is: in closed form or halved."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Vector = NDArray[np.float64]


def linear(shape: tuple[int, ...], classes: int, *, seed: int = 0) -> nn.Sequential:
    """Return logits that are linear in the pixels and some 20 apart in the middle of the cube."""
    rng = torch.Generator().manual_seed(seed)
    pixels = int(np.prod(shape))
    layer = nn.Linear(pixels, classes)
    with torch.no_grad():
        layer.weight.copy_(80 / pixels**0.5 * torch.randn(classes, pixels, generator=rng))
        layer.bias.copy_(20 * torch.randn(classes, generator=rng) - 0.5 * layer.weight.sum(1))
    return nn.Sequential(nn.Flatten(), layer)


def middling(net: nn.Sequential, n: int, shape: tuple[int, ...], *, seed: int = 0) -> Tensor:
    """Return images far from the border of the cube, and not the nearest to that of their class."""
    rng = torch.Generator().manual_seed(seed)
    x = 0.4 + 0.2 * torch.rand((5 * n, *shape), generator=rng)
    with torch.no_grad():
        best = net(x).topk(2, dim=1).values
    return x[(best[:, 0] - best[:, 1]).topk(n).indices]


def nearest(net: nn.Sequential, x: Tensor, y: Tensor, norm: str) -> Vector:
    """Return the distance to the nearest point of [0, 1] that a linear net does not call `y`."""
    weight = net[1].weight.detach().double().numpy()
    bias = net[1].bias.detach().double().numpy()
    found = []
    for point, label in zip(x.flatten(1).double().numpy(), y.tolist(), strict=True):
        others = [k for k in range(len(weight)) if k != label]
        planes = [(weight[label] - weight[k], bias[label] - bias[k]) for k in others]
        found.append(min(to_plane(point, w, w @ point + b, norm) for w, b in planes))
    return np.array(found)


def to_plane(point: Vector, normal: Vector, value: float, norm: str) -> float:
    """Return how far the point of [0, 1] is from where the function of that value is 0."""
    normal, value = normal * np.sign(value), abs(value)
    size, room = np.abs(normal), np.where(normal > 0, point, 1 - point)
    if size @ room < value:
        return np.inf
    if norm in ("l0", "l1"):
        return _greedy(size, room, value, norm)
    speed = np.ones_like(size) if norm == "linf" else size
    low, high = 0.0, float((room / np.maximum(speed, 1e-12)).max())
    for _ in range(200):
        middle = (low + high) / 2
        enough = size @ np.minimum(middle * speed, room) >= value
        low, high = (low, middle) if enough else (middle, high)
    order = np.inf if norm == "linf" else 2
    return float(np.linalg.norm(np.minimum(high * speed, room), ord=order))


def _greedy(size: Vector, room: Vector, value: float, norm: str) -> float:
    order = np.argsort(-(size if norm == "l1" else size * room))
    gains = np.cumsum((size * room)[order])
    last = int(np.searchsorted(gains, value))
    if norm == "l0":
        return float(last + 1)
    before = gains[last - 1] if last else 0.0
    return float(room[order][:last].sum() + (value - before) / size[order][last])
