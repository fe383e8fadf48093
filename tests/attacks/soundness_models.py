"""Nets for the tests of the soundness verdict: honest ones, and the same behind a deception."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from attack_models import Answer, with_gradient_times
from torch import Tensor, nn

from purpleteam.data.images import Dataset, ImageSet
from purpleteam.data.sources.digits import load_digits
from purpleteam.models.devices import to_batch

Layers = nn.Sequential
SIDE = 12


@cache
def small_digits() -> Dataset:
    """Return the embedded digits at 12x12: cut to the middle 24x24, the mean of every 2x2."""

    def small(images: ImageSet) -> ImageSet:
        middle = images.images[:, 2:26, 2:26].reshape(len(images), SIDE, 2, SIDE, 2, 1)
        return ImageSet(middle.mean((2, 4)).round().astype(np.uint8), images.labels)

    whole = load_digits()
    return replace(
        whole,
        name="small",
        train=small(whole.train),
        validation=small(whole.validation),
        test=small(whole.test),
    )


def cnn(channels: int = 1, *, width: int = 8, norm: bool = False, side: int = SIDE) -> Layers:
    """Return two strided convolutions and a linear layer."""
    middle = [nn.BatchNorm2d(2 * width)] if norm else []
    return nn.Sequential(
        nn.Conv2d(channels, width, 5, 2, 2),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, 2, 1),
        *middle,
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * (side // 4) ** 2, 10),
    )


def mlp() -> Layers:
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 64), nn.ReLU(), nn.Linear(64, 10))


class Lipschitz(nn.Linear):
    """A layer that moves its output no further than its input moved, times `scale`, in L2."""

    def __init__(self, inputs: int, outputs: int, scale: float = 1.0) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.scale * self.weight / self.weight.norm())


def large_margin() -> Layers:
    return nn.Sequential(nn.Flatten(), Lipschitz(SIDE**2, 64), nn.ReLU(), Lipschitz(64, 10, 50.0))


class Ramp(nn.Module):
    """A fixed first layer: what is darker than `low` is black, brighter than `high` is white."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.low) / (self.high - self.low)).clamp(0, 1)


Loss = Callable[[Layers, Tensor, Tensor, float], Tensor]
"""Of a net, images and labels, after this share of the training."""


def plain(net: Layers, x: Tensor, y: Tensor, progress: float) -> Tensor:
    return F.cross_entropy(net(x), y)


def hinge(net: Layers, x: Tensor, y: Tensor, progress: float) -> Tensor:
    return F.multi_margin_loss(net(x), y, margin=1.0)


def adversarial(epsilon: float) -> Loss:
    """Return the loss after three steps of PGD."""

    def loss(net: Layers, x: Tensor, y: Tensor, progress: float) -> Tensor:
        x_adv = (x + epsilon * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
        for _ in range(3):
            x_adv.requires_grad_(True)
            (slope,) = torch.autograd.grad(plain(net, x_adv, y, progress), x_adv)
            x_adv = x_adv.detach() + epsilon / 2 * slope.sign()
            x_adv = torch.minimum(torch.maximum(x_adv, x - epsilon), x + epsilon).clamp(0, 1)
        return plain(net, x_adv, y, progress)

    return loss


def interval(epsilon: float) -> Loss:
    """Return half the plain loss, half that of the worst logits in the box (arXiv:1810.12715)."""

    def loss(net: Layers, x: Tensor, y: Tensor, progress: float) -> Tensor:
        reach = epsilon * min(1.0, 2 * progress)
        low, high = (x - reach).clamp(0, 1), (x + reach).clamp(0, 1)
        for layer in net:
            low, high = bounds(layer, low, high)
        worst = torch.where(F.one_hot(y, 10).bool(), low, high)
        return (plain(net, x, y, progress) + F.cross_entropy(worst, y)) / 2

    return loss


def bounds(layer: nn.Module, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    if not isinstance(layer, (nn.Linear, nn.Conv2d)):
        return layer(low), layer(high)  # monotone
    middle, radius = layer((low + high) / 2), (high - low) / 2
    if isinstance(layer, nn.Linear):
        reach = F.linear(radius, layer.weight.abs())
    else:
        reach = F.conv2d(radius, layer.weight.abs(), None, layer.stride, layer.padding)
    return middle - reach, middle + reach


def trained(
    make: Callable[[], Layers],
    images: ImageSet,
    loss: Loss = plain,
    *,
    steps: int = 150,
    rate: float = 3e-3,
) -> Layers:
    """Return a net trained on batches of 64, always the same ones."""
    x, y = to_batch(images.images).contiguous(), torch.tensor(images.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = make()
        optimiser = torch.optim.Adam(net.parameters(), rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
        for step in range(steps):
            rows = torch.randint(len(x), (64,))
            optimiser.zero_grad()
            loss(net, x[rows], y[rows], step / steps).backward()
            optimiser.step()
            schedule.step()
    return net.eval()


def labelled_by_colour() -> ImageSet:
    """Return noisy 8 x 8 images, each a little brighter in the channel of its class."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    noise = rng.integers(0, 120, (90, 8, 8, 3))
    return ImageSet(
        (noise + 60 * np.eye(3, dtype=int)[labels][:, None, None]).astype(np.uint8), labels
    )


@cache
def colour_net() -> Layers:
    """Return a net that tells these images' classes."""

    def make() -> Layers:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
        )

    return trained(make, labelled_by_colour(), steps=100, rate=0.02)


class StraightThrough(torch.autograd.Function):
    """Rounds to so many levels, and says that it did not."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor, levels: float) -> Tensor:
        return (x * levels).round() / levels

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def k_winners(net: Layers, x: Tensor) -> Tensor:
    """Keep the largest tenth of each layer's values, in place of ReLU (arXiv:1905.10510)."""
    for layer in net:
        if isinstance(layer, nn.ReLU):
            flat = x.flatten(1)
            least = flat.topk(flat.shape[1] // 10, dim=1).values[:, -1:]
            x = torch.where(flat >= least, flat, 0.0).view_as(x)
        else:
            x = layer(x)
    return x


def optimising(net: Layers, x: Tensor) -> Tensor:
    """Step away from the boundary before answering."""
    with torch.inference_mode(False), torch.enable_grad():
        own = x.detach().clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(net(own).amax(1).sum(), own)
    return net((x + 0.02 * slope.sign()).clamp(0, 1))


def random_gradient(net: Layers, x: Tensor) -> Tensor:
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(len(x))) - 0.5
    return (
        net(x.detach())
        + 0 * x.flatten(1).sum(1, keepdim=True)
        + (lambda z: z - z.detach())(
            (x * noise).flatten(1).sum(1, keepdim=True) * torch.arange(10.0)
        )
    )


@cache
def honest(name: str) -> Layers:
    """Return one of the honest nets, trained on the small digits."""
    make, loss, steps = HONEST[name]
    return trained(make, small_digits().train, loss, steps=steps)


HONEST: dict[str, tuple[Callable[[], Layers], Loss, int]] = {
    "standard": (cnn, plain, 300),
    "perceptron": (mlp, plain, 150),
    "batch norm": (lambda: cnn(norm=True), plain, 60),
    "adversarially trained": (cnn, adversarial(0.1), 100),
    "interval trained": (cnn, interval(0.05), 150),
    "large margin": (large_margin, hinge, 150),
    "input ramp": (lambda: nn.Sequential(Ramp(0.1, 0.9), *cnn()), adversarial(0.1), 100),
}

MASKED: dict[str, Answer] = {
    "detached": lambda net, x: net(x.detach()) + 0 * net(x),
    "NaN gradient": with_gradient_times(float("nan")),
    "zero gradient": with_gradient_times(0.0),
    "reversed gradient": with_gradient_times(-1.0),
    "random gradient": random_gradient,
    "quantised input": lambda net, x: net((x * 16).round() / 16),
    "rounded logits": lambda net, x: net(x).round(),
    "finely rounded logits": lambda net, x: (net(x) * 100).round() / 100,
    "temperature 1000": lambda net, x: 1000 * net(x),
    "temperature 10000": lambda net, x: 10_000 * net(x),
    "saturated sigmoid": lambda net, x: (300 * (net(x) - 2)).sigmoid(),
    "saturated tanh": lambda net, x: (100 * net(x)).tanh(),
    "saturated softmax": lambda net, x: (100 * net(x)).softmax(1),
    "shattered gradient": lambda net, x: net(x + 0.05 * torch.sin(500 * x)),
}
"""Deceptions behind which a PGD in cross-entropy sees nothing; the labels stay as they were."""

GRADIENTLESS: dict[str, Answer] = {
    "two levels": lambda net, x: net((x > 0.5).float()),
    "labels alone": lambda net, x: F.one_hot(net(x).argmax(1), 10).float(),
}
"""Nets from whose scores no gradient leads to the images: nothing there for a PGD to follow."""

DOUBTFUL: dict[str, Answer] = {
    "softmax": lambda net, x: net(x).softmax(1),
    "softmax with temperature": lambda net, x: (net(x) / 5).softmax(1),
    "sigmoid": lambda net, x: net(x).sigmoid(),
    "random layer": lambda net, x: net(x + 0.02 * torch.randn_like(x)),
    "dropout": lambda net, x: net(F.dropout(x, 0.2)),
    "optimising": optimising,
    "straight-through rounding of logits": lambda net, x: StraightThrough.apply(net(x), 1.0),
    "straight-through rounding of pixels": lambda net, x: net(StraightThrough.apply(x, 8.0)),
    "winners": k_winners,
    "scores of the batch": lambda net, x: net((x - 0.1 * x.mean(0)).clamp(0, 1)),
    "noise-like scores": lambda net, x: net(x) + 8 * torch.sin(1e4 * x.flatten(1)[:, 60:70]),
}
"""What an attack may get through, and yet nobody should take at face value."""
