"""Classifiers for the tests: one whose smallest perturbation is known, and ones that deceive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

SHAPE = (1, 4, 4)
PIXELS = 16
Answer = Callable[[nn.Module, Tensor], Tensor]


def linear_net(classes: int = 2, *, seed: int = 0) -> nn.Sequential:
    """Return logits that are linear in the 4x4 pixels, 0 in the middle of the cube."""
    rng = torch.Generator().manual_seed(seed)
    layer = nn.Linear(PIXELS, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(classes, PIXELS, generator=rng))
        layer.bias.copy_(-0.5 * layer.weight.sum(1))
    return nn.Sequential(nn.Flatten(), layer)


def images_of_the_middle(n: int, *, seed: int = 0) -> Tensor:
    """Return images whose pixels lie between 0.4 and 0.6, far from the border of the cube."""
    rng = torch.Generator().manual_seed(seed)
    return 0.4 + 0.2 * torch.rand((n, *SHAPE), generator=rng)


def label_of(model: nn.Module, x: Tensor) -> Tensor:
    """Return what the model says of each image."""
    with torch.no_grad():
        return model(x).argmax(1)


class Deceiver(nn.Module):
    """An honest net behind something that spoils the attack and not the answer."""

    def __init__(self, net: nn.Module, answer: Answer) -> None:
        super().__init__()
        self.net = net
        self.answer = answer

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.net, x)


class _TimesInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def with_gradient_times(factor: float) -> Answer:
    """Return answers whose gradient is the true one times `factor`."""
    return lambda net, x: net(_TimesInBackward.apply(x, factor))
