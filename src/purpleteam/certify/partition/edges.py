"""The fixed first layers of every part's network: pairs of oriented edges, and roughly where.

Oriented gradients (Dalal and Triggs, CVPR 2005) and their co-occurrence (Watanabe, Ito and Yokoi,
PSIVT 2009), with soft orientations and Gaussian windows. Nothing is learned, so all parts may
share it; with about 27 training images a part, all that need not be learned is worth having.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from purpleteam.certify.partition.figure import CANVAS, to_canvas

__all__ = ["FEATURES", "edge_pairs"]

ORIENTATIONS = 8
SHARPNESS = 8  # an edge's share of an orientation: the cosine between the two to this power
SIGMA = 0.7  # of the Gaussian whose derivatives are the gradient, in pixels of the canvas
HALF = CANVAS // 2
OFFSETS = ((0, 2), (2, 0))  # from one edge to the other: down, across, halved pixels
WINDOWS = 4  # a side
WINDOW_SIGMA = 1.5  # halved pixels
FEATURES = len(OFFSETS) * ORIENTATIONS**2 * WINDOWS**2
"""Numbers that describe an image."""
TINY = 1e-12


def edge_pairs(x: Tensor, degrees: float = 0.0) -> Tensor:
    """Return how often each pair of edges stands side by side, in each window of the image.

    Args:
        x: images, float (N, C, H, W) in [0, 1]; of several channels the strongest edge counts.
        degrees: how far each image is turned first.

    Returns:
        (N, FEATURES), at least 0, each row of length 1, or of zeros where an image has no edge.
    """
    edges = F.avg_pool2d(_rooted(_oriented(to_canvas(x, degrees))), 2)  # (N, O, HALF, HALF)
    first = (edges.flatten(2)[:, :, None] * _windows()).flatten(1, 2)  # (N, O * windows, pixels)
    second = torch.cat([_moved(edges, *offset) for offset in OFFSETS], dim=1).flatten(2)
    return _rooted((first @ second.mT).flatten(1))


def _oriented(x: Tensor) -> Tensor:
    """Return the strength of the edges of each orientation, (N, ORIENTATIONS, CANVAS, CANVAS)."""
    reach = math.ceil(3 * SIGMA)
    t = torch.arange(-reach, reach + 1.0)
    smooth = _bell(t, SIGMA) / _bell(t, SIGMA).sum()
    slope = -t / SIGMA**2 * smooth
    across, down = _filtered(x, smooth, slope), _filtered(x, slope, smooth)  # (N, C, H, W)
    strength = (across**2 + down**2).sqrt()
    strength, channel = strength.max(dim=1, keepdim=True)
    across, down = across.gather(1, channel), down.gather(1, channel)
    angles = torch.arange(ORIENTATIONS) * (2 * math.pi / ORIENTATIONS)
    cosine = across * angles.cos()[:, None, None] + down * angles.sin()[:, None, None]
    share = (cosine / strength.clamp_min(TINY)).clamp_min(0)
    for _ in range(int(math.log2(SHARPNESS))):
        share = share * share
    return share * strength


def _rooted(x: Tensor) -> Tensor:
    """Return the root of each image's shares: their products are Bhattacharyya coefficients."""
    return (x / x.flatten(1).sum(dim=1).clamp_min(TINY).view(-1, *[1] * (x.ndim - 1))).sqrt()


def _moved(x: Tensor, down: int, across: int) -> Tensor:
    """Return what lies so far down and across from each pixel, 0 beyond the border."""
    padded = F.pad(x, (abs(across), abs(across), 0, down))
    start = abs(across) + across
    return padded[:, :, down : down + HALF, start : start + HALF]


def _filtered(x: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Return every channel correlated with `down` over rows and `across` over columns."""
    single, reach = x.flatten(0, 1)[:, None], len(down) // 2
    single = F.conv2d(single, down.view(1, 1, -1, 1), padding=(reach, 0))
    return F.conv2d(single, across.view(1, 1, 1, -1), padding=(0, reach)).view_as(x)


def _windows() -> Tensor:
    """Return the weight of each pixel of the halved canvas in each window, (windows, pixels)."""
    middles = (torch.arange(WINDOWS) + 0.5) * HALF / WINDOWS - 0.5
    weights = _bell(torch.arange(HALF) - middles[:, None], WINDOW_SIGMA)  # (WINDOWS, HALF)
    return torch.einsum("ay,bx->abyx", weights, weights).reshape(WINDOWS**2, HALF**2)


def _bell(t: Tensor, sigma: float) -> Tensor:
    return torch.exp(-(t**2) / (2 * sigma**2))
