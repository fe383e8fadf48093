"""The fixed first layers of every part's network: pairs of oriented edges, and roughly where.

Oriented gradients (Dalal and Triggs, CVPR 2005) and their co-occurrence (Watanabe, Ito and Yokoi,
PSIVT 2009), of images brought onto one canvas: a figure on a plain ground is centred, upright and
in size. Nothing is learned, and no image sees another, so all parts may share it.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

CANVAS = 28  # height and width that every image is brought to
SPREAD = 0.37  # standard deviation that a figure's height gets, where half the canvas is 1
WIDE = 0.75  # how much narrower than high figures are
PLAIN = 0.05  # mean difference from the ground along the border up to which it is plain
TINY_MASS = 1e-3
ORIENTATIONS = 8
SQUARINGS = 3  # an edge's share of an orientation: the cosine between the two to the power 2^3
SIGMA = 0.7  # of the Gaussian whose derivatives are the gradient, in pixels of the canvas
HALF = CANVAS // 2
OFFSETS = ((0, 2), (2, 0))  # from one edge to the other: down, across, halved pixels
WINDOWS = 4  # a side
WINDOW_SIGMA = 1.5  # halved pixels
FEATURES = len(OFFSETS) * ORIENTATIONS**2 * WINDOWS**2  # numbers that describe an image
TINY = 1e-12


def to_canvas(x: Tensor, degrees: float = 0.0) -> Tensor:
    """Return images as differences from their ground, figures straightened.

    Where the border, whose median is the ground, is plain, the image is a figure: it is moved to
    its centre of mass, sheared upright and scaled. Any other image keeps its frame.

    From float (N, C, H, W) in [0, 1], each first turned by `degrees` about its middle, to
    (N, C, CANVAS, CANVAS) in [-1, 1].
    """
    border = torch.cat([x[:, :, 0], x[:, :, -1], x[:, :, :, 0], x[:, :, :, -1]], dim=2)
    ground = border.median(dim=2).values[:, :, None]  # (N, C, 1)
    plain = (border - ground).abs().mean(dim=(1, 2)) < PLAIN
    x = x - ground[..., None]
    if max(x.shape[2:]) > CANVAS:  # sampling alone would skip pixels
        x = F.adaptive_avg_pool2d(x, (min(x.shape[2], CANVAS), min(x.shape[3], CANVAS)))
    if degrees:
        cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        turn = torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0]])
        x = _sampled(x, turn.expand(len(x), 2, 3), x.shape[2:])
    frame = torch.where(plain[:, None, None], _frame(x), torch.eye(2, 3))
    return _sampled(x, frame, (CANVAS, CANVAS))


def _sampled(x: Tensor, frame: Tensor, size: Sequence[int]) -> Tensor:
    grid = F.affine_grid(frame, [*x.shape[:2], *size], align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def _frame(x: Tensor) -> Tensor:
    """Return where the upright figure lies in each image: affine maps (N, 2, 3)."""
    mass = x.abs().mean(dim=1)  # (N, H, W)
    mass = mass / mass.sum(dim=(1, 2), keepdim=True).clamp_min(TINY_MASS)
    # the middles of the pixels, as `affine_grid` counts them: in [-1, 1]
    rows, columns = ((torch.arange(size) + 0.5) * 2 / size - 1 for size in mass.shape[1:])
    by_row, by_column = mass.sum(dim=2), mass.sum(dim=1)
    row, column = by_row @ rows, by_column @ columns  # (N,)
    down, right = rows - row[:, None], columns - column[:, None]
    height = (by_row * down**2).sum(dim=1).clamp_min(TINY_MASS)
    width = (by_column * right**2).sum(dim=1)
    both = torch.einsum("nhw,nh,nw->n", mass, down, right)
    slant = (both / height).clamp(-1, 1)
    upright = (width - 2 * slant * both + slant**2 * height).clamp_min(TINY_MASS)
    tall = height.sqrt() / SPREAD
    wide = (upright.sqrt() / (SPREAD * WIDE)).sqrt()  # half way: a one stays narrower than a zero
    frame = torch.zeros(len(x), 2, 3)
    frame[:, 0] = torch.stack([wide, slant * tall, column], dim=1)
    frame[:, 1, 1:] = torch.stack([tall, row], dim=1)
    return frame


def edge_pairs(x: Tensor, degrees: float = 0.0) -> Tensor:
    """Return how often each pair of edges stands side by side, in each window of the image.

    From float (N, C, H, W) in [0, 1], each first turned by `degrees`, to (N, FEATURES) of at least
    0, rows of length 1, or of zeros where an image has no edge. The strongest channel counts.
    """
    edges = F.avg_pool2d(_rooted(_oriented(to_canvas(x, degrees))), 2)  # (N, O, HALF, HALF)
    middles = (torch.arange(WINDOWS) + 0.5) * HALF / WINDOWS - 0.5
    weights = _bell(torch.arange(HALF) - middles[:, None], WINDOW_SIGMA)  # (WINDOWS, HALF)
    windows = torch.einsum("ay,bx->abyx", weights, weights).reshape(WINDOWS**2, HALF**2)
    first = (edges.flatten(2)[:, :, None] * windows).flatten(1, 2)  # (N, O * windows, pixels)
    # what lies at each offset from each pixel, 0 beyond the border
    moved = [F.pad(edges, (-right, right, -down, down)) for down, right in OFFSETS]
    second = torch.cat(moved, dim=1).flatten(2)
    return _rooted((first @ second.mT).flatten(1))


def _oriented(x: Tensor) -> Tensor:
    """Return the strength of the edges of each orientation, (N, ORIENTATIONS, CANVAS, CANVAS)."""
    reach = math.ceil(3 * SIGMA)
    t = torch.arange(-reach, reach + 1.0)
    smooth = _bell(t, SIGMA) / _bell(t, SIGMA).sum()
    slope = -t / SIGMA**2 * smooth
    across, down = _filtered(x, smooth, slope), _filtered(x, slope, smooth)  # (N, C, H, W)
    strength, channel = (across**2 + down**2).sqrt().max(dim=1, keepdim=True)
    across, down = across.gather(1, channel), down.gather(1, channel)
    angles = torch.arange(ORIENTATIONS) * (2 * math.pi / ORIENTATIONS)
    cosine = across * angles.cos()[:, None, None] + down * angles.sin()[:, None, None]
    share = (cosine / strength.clamp_min(TINY)).clamp_min(0)
    for _ in range(SQUARINGS):
        share = share * share
    return share * strength


def _rooted(x: Tensor) -> Tensor:
    """Return the root of each image's shares: their products are Bhattacharyya coefficients."""
    return (x / x.flatten(1).sum(dim=1).clamp_min(TINY).view(-1, *[1] * (x.ndim - 1))).sqrt()


def _filtered(x: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Return every channel correlated with `down` over rows and `across` over columns."""
    single, reach = x.flatten(0, 1)[:, None], len(down) // 2
    single = F.conv2d(single, down.view(1, 1, -1, 1), padding=(reach, 0))
    return F.conv2d(single, across.view(1, 1, 1, -1), padding=(0, reach)).view_as(x)


def _bell(t: Tensor, sigma: float) -> Tensor:
    return torch.exp(-(t**2) / (2 * sigma**2))
