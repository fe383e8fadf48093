"""Random changes of training images that keep their label, seeded by the caller.

`shift` moves by whole pixels. `freehand` is for drawings: rotation, scale, shear and a fraction
of a pixel of shift, and strokes made thicker or thinner, as hands and pens differ from MNIST's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from purpleteam.core.registry import Registry

__all__ = ["AUGMENTATIONS", "Augmentation"]

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
"""Changes a batch (N, C, H, W) in [0, 1]; all chance comes from the generator."""

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
