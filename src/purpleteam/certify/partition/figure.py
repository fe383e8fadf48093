"""Every image alone onto one canvas: a figure on a plain ground is centred, upright and in size.

Nothing here is learned, and no image sees another: a certificate against changed training images
allows what all parts share only where it does not depend on those images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["CANVAS", "to_canvas"]

CANVAS = 28
"""Height and width that every image is brought to."""
SPREAD = 0.37  # standard deviation that a figure's height gets, where half the canvas is 1
WIDE = 0.75  # how much narrower than high figures are
PLAIN = 0.05  # mean difference from the ground along the border up to which it is plain
TINY = 1e-3


def to_canvas(x: Tensor, degrees: float = 0.0) -> Tensor:
    """Return images as differences from their ground, figures straightened.

    The ground is the median of the border. Where the border is plain, the image is a figure: it
    is moved to its centre of mass, sheared upright (its slant is the regression of its columns on
    its rows) and scaled. Any other image keeps its frame.

    Args:
        x: images, float (N, C, H, W) in [0, 1].
        degrees: how far each image is turned about its middle before that.

    Returns:
        (N, C, CANVAS, CANVAS) in [-1, 1].
    """
    border = torch.cat([x[:, :, 0], x[:, :, -1], x[:, :, :, 0], x[:, :, :, -1]], dim=2)
    ground = border.median(dim=2).values[:, :, None]  # (N, C, 1)
    plain = (border - ground).abs().mean(dim=(1, 2)) < PLAIN
    x = x - ground[..., None]
    if max(x.shape[2:]) > CANVAS:  # sampling alone would skip pixels
        x = F.adaptive_avg_pool2d(x, (min(x.shape[2], CANVAS), min(x.shape[3], CANVAS)))
    if degrees:
        x = _sampled(x, _turned(degrees).expand(len(x), 2, 3), x.shape[2:])
    frame = torch.where(plain[:, None, None], _frame(x), torch.eye(2, 3))
    return _sampled(x, frame, (CANVAS, CANVAS))


def _sampled(x: Tensor, frame: Tensor, size: Sequence[int]) -> Tensor:
    grid = F.affine_grid(frame, [*x.shape[:2], *size], align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def _turned(degrees: float) -> Tensor:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0]])


def _frame(x: Tensor) -> Tensor:
    """Return where the upright figure lies in each image: affine maps (N, 2, 3)."""
    mass = x.abs().mean(dim=1)  # (N, H, W)
    mass = mass / mass.sum(dim=(1, 2), keepdim=True).clamp_min(TINY)
    rows, columns = (_places(size) for size in mass.shape[1:])
    by_row, by_column = mass.sum(dim=2), mass.sum(dim=1)
    row, column = by_row @ rows, by_column @ columns  # (N,)
    down, right = rows - row[:, None], columns - column[:, None]
    height = (by_row * down**2).sum(dim=1).clamp_min(TINY)
    width = (by_column * right**2).sum(dim=1)
    both = torch.einsum("nhw,nh,nw->n", mass, down, right)
    slant = (both / height).clamp(-1, 1)
    upright = (width - 2 * slant * both + slant**2 * height).clamp_min(TINY)
    tall = height.sqrt() / SPREAD
    wide = (upright.sqrt() / (SPREAD * WIDE)).sqrt()  # half way: a one stays narrower than a zero
    frame = torch.zeros(len(x), 2, 3)
    frame[:, 0] = torch.stack([wide, slant * tall, column], dim=1)
    frame[:, 1, 1:] = torch.stack([tall, row], dim=1)
    return frame


def _places(size: int) -> Tensor:
    """Return the middles of so many pixels, as `affine_grid` counts them: in [-1, 1]."""
    return (torch.arange(size) + 0.5) * 2 / size - 1
