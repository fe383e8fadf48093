"""Architectures by name, one file each: `(shape, classes) -> nn.Module` with random weights.

Each takes images in [0, 1] and normalises inside, so that epsilon is in pixel units everywhere.
"""

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from purpleteam.core.registry import Registry

__all__ = ["ARCHITECTURES", "Fixed", "Normalise", "Shape", "initialise", "usual_architecture"]

Shape = tuple[int, int, int]  # channels, height and width of an image
Architecture = Callable[[Shape, int], nn.Module]  # of an image's shape and a number of classes
ARCHITECTURES: Registry[Architecture] = Registry("architecture")
LARGEST = 64  # side from which the first dense layer of a net without pooling outgrows the rest


class Normalise(nn.Module):
    """Subtracts a fixed mean and divides by a fixed deviation; both are part of the weights."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: float = 0.13, deviation: float = 0.31) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1, 1, 1, 1), mean))
        self.register_buffer("deviation", torch.full((1, 1, 1, 1), deviation))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation


class Fixed(nn.Sequential):
    """First layers of a sequence that have no weights and see each image alone, always alike.

    A training on images as they are may ask them once.
    """


def initialise(architecture: Architecture, shape: Shape, classes: int, seed: int) -> nn.Module:
    """Return the net with weights that are a pure function of `seed`; no global seed is set."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return architecture(shape, classes)


def usual_architecture(shape: Shape) -> str:
    """Return the architecture that is trained where none is named.

    The classic one learns many classes in few epochs; the residual one has as few weights for large
    images as for small ones.
    """
    return "classic_cnn" if max(shape[1:]) <= LARGEST else "residual_cnn"


ARCHITECTURES.load(sys.modules[__name__])
