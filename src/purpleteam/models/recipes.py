"""Training recipes by name: how many epochs, at what rate, on which augmented images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from purpleteam.core.digest import sha256_bytes
from purpleteam.core.registry import Registry, check_ranges, part_of

RECIPES: Registry[type[Recipe]] = Registry("recipe")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a classifier is trained; Adam (Kingma and Ba 2015, arXiv:1412.6980)."""

    name: ClassVar[str] = ""
    keep: ClassVar[Literal["best", "last"]] = "best"
    """Which epoch's weights are kept: the best by validation, or the last."""
    ranges: ClassVar[str] = (
        "epochs at least 1; batch_size at least 1; learning_rate above 0 and finite; "
        "weight_decay at least 0 and finite; gradient_clip at least 0 and finite; "
        "l1 at least 0 and finite; average_from at least 0 and under 1; "
        "average_decay at least 0 and under 1"
    )

    epochs: int = 5
    """Passes over the training images."""
    batch_size: int = 64
    """Images a step."""
    learning_rate: float = 1e-3
    """Largest step size of Adam."""
    schedule: Literal["constant", "one_cycle", "cosine", "steps"] = "one_cycle"
    """`one_cycle` rises for a quarter of the training, then falls to 0, to which `cosine` falls
    from the start; `steps` is a fifth from 70 % on, and a fifth of that from 85 %."""
    weight_decay: float = 0.0
    """Decoupled weight decay (arXiv:1711.05101)."""
    l1: float = 0.0
    """Times the sum of the absolute weights, less biases and scales, is added to the loss."""
    gradient_clip: float = 0.0
    """Longest gradient (L2 norm, all weights together) of a step; 0 lets any pass."""
    averaging: Literal["none", "ema", "swa"] = "none"
    """Which weights are validated and kept: those of the training, their exponential mean over
    steps (Polyak and Juditsky 1992), or their mean over epochs (SWA, arXiv:1803.05407)."""
    average_from: float = 0.5
    """Fraction of the training after which averages begin."""
    average_decay: float = 0.999
    """Share of the exponential mean that a step leaves."""
    precise_batch_norm: bool = False
    """Take the statistics of batch normalisation over all training images, unchanged, before each
    validation (arXiv:2105.07576)."""
    augmentation: str = "none"
    """What is done to the images: none, shift, freehand."""
    precision: Literal["fast", "float32"] = "fast"
    """`fast` is bfloat16 autocast where the hardware is faster at it, else float32."""

    def __post_init__(self) -> None:
        check_ranges(self)

    def rate(self, done: float) -> float:
        """Return the step size after a fraction of the training."""
        return self.learning_rate * SCHEDULES[self.schedule](done)


@part_of(RECIPES, "plain")
class Plain(Recipe):
    """Images as they are; what a poisoned set and its clean copy are trained with."""

    learning_rate: float = 2e-3


@part_of(RECIPES, "accurate")
class Accurate(Recipe):
    """Shifted images for a few epochs more: the baseline that is attacked and defended."""

    epochs: int = 8
    learning_rate: float = 2e-3
    augmentation: str = "shift"


@part_of(RECIPES, "freehand")
class Freehand(Recipe):
    """Turned, scaled and redrawn strokes: for a model that people draw for."""

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 4e-3
    weight_decay: float = 0.02
    augmentation: str = "freehand"


@part_of(RECIPES, "standard")
class Standard(Freehand):
    """The same with averaged weights: as accurate as ten minutes of two cores make a small net."""

    averaging: Literal["none", "ema", "swa"] = "ema"


def one_cycle(done: float) -> float:
    """Return the share of the largest rate after a fraction of the training (arXiv:1708.07120)."""
    rise = 0.25
    if done < rise:
        return 0.04 + 0.96 * done / rise
    return (1 + math.cos(math.pi * (done - rise) / (1 - rise))) / 2


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda _: 1.0,
    "one_cycle": one_cycle,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "steps": lambda done: 0.2 ** ((done >= 0.7) + (done >= 0.85)),
}
"""Shares of the largest rate, after fractions of the training."""


def generator(*key: object) -> torch.Generator:
    """Return random numbers that are a function of the key alone."""
    digest = sha256_bytes("/".join(map(str, key)).encode())
    return torch.Generator().manual_seed(int(digest[7:22], 16))


Augmentation = Callable[[Tensor, torch.Generator], Tensor]  # of a batch (N, C, H, W) in [0, 1]
AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation")


@AUGMENTATIONS.register("none")
def none(x: Tensor, rng: torch.Generator) -> Tensor:
    """Return the images as they are."""
    return x


@AUGMENTATIONS.register("shift")
def shift(x: Tensor, rng: torch.Generator, pixels: int = 2) -> Tensor:
    """Move each image by up to `pixels` whole pixels in each direction, zeros filled in."""
    n, channels, height, width = x.shape
    padded = F.pad(x, (pixels,) * 4)
    moves = torch.randint(0, 2 * pixels + 1, (2, n), generator=rng).to(x.device)
    rows = moves[0][:, None] + torch.arange(height, device=x.device)  # (N, H)
    columns = moves[1][:, None] + torch.arange(width, device=x.device)  # (N, W)
    image = torch.arange(n, device=x.device)[:, None, None, None]
    channel = torch.arange(channels, device=x.device)[None, :, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


@AUGMENTATIONS.register("freehand")
def freehand(x: Tensor, rng: torch.Generator) -> Tensor:
    """Turn, scale, shear and shift each image a little, and change the width of its strokes."""
    n = len(x)
    uniform = 2 * torch.rand(7, n, generator=rng) - 1
    angle, shear = uniform[0] * math.radians(15), uniform[1] * 0.2
    scale_x, scale_y = 1 + 0.12 * uniform[2], 1 + 0.12 * uniform[3]
    cosine, sine = angle.cos(), angle.sin()
    theta = torch.stack(
        [
            torch.stack([cosine / scale_x, (shear - sine) / scale_x, uniform[4] * 0.1], 1),
            torch.stack([sine / scale_y, cosine / scale_y, uniform[5] * 0.1], 1),
        ],
        1,
    ).to(x.device)  # (N, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, align_corners=False)
    thick = F.max_pool2d(x, 3, stride=1, padding=1)
    thin = -F.max_pool2d(-x, 3, stride=1, padding=1)
    amount = uniform[6].to(x.device)[:, None, None, None]
    other = torch.where(amount > 0, thick, thin)
    return torch.lerp(x, other, amount.abs() * 0.6).clamp(0, 1)
