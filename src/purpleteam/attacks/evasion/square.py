"""Square attack (Andriushchenko et al. 2020, arXiv:1912.00049; L1 as in arXiv:2103.01208)."""

import math
from collections.abc import Iterator
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from purpleteam.attacks.evasion import ATTACKS, Driver, Noise, QueryAttack, part_of
from purpleteam.attacks.norms import NORMS

# of 10,000 queries: after each of them a window covers half of what it did before
MILESTONES = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
SMALLEST_PYRAMIDS = 3  # Pixels: a smaller window has no room for two of them
TILES = 5  # along each edge, in the start in l2 and l1
DRAWN_AT_ONCE = 500  # Queries: seeding a generator costs as much as drawing a thousand numbers


@part_of(ATTACKS, "square")
class Square(QueryAttack):
    """Changes one square window a query, and keeps the change where the margin falls.

    In linf the window moves to the top or the bottom of the box. In l2 and l1 it takes over what
    a second window held and what the ball has left, in the form of two opposite pyramids.
    """

    norms = ("linf", "l2", "l1")
    ranges = "initial_share above 0 and at most 1"

    initial_share: float = 0.8
    """Share of the image that the first windows cover."""

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        order = NORMS[self.norm].order
        if self.norm == "linf":
            stripes = _signs(noise.uniform(x[:, :, :1, :]))  # (N, C, 1, W)
            x_adv = (x + self.epsilon * stripes).clamp(0, 1)
        else:
            x_adv = _tiled(x, self.epsilon, noise, order)
        rows, images = torch.arange(len(x), device=x.device), x
        lowest, last = _margin(driver, x_adv, rows), x_adv.clone()
        for query, draws in enumerate(_draws(x, noise, self.queries - 1), start=1):
            stands = driver.standing[rows]
            if not stands.all():
                last[rows] = x_adv
                rows, images, x_adv = rows[stands], images[stands], x_adv[stands]
                lowest = lowest[stands]
            if len(rows) == 0:
                break
            here, side = draws[rows], self._side(query, x)
            if self.norm == "linf":
                asked = _to_the_edge(x_adv, images, here, side, self.epsilon)
            else:
                asked = _two_pyramids(x_adv, images, here, side, self.epsilon, order)
            margin = _margin(driver, asked, rows)
            better = (margin < lowest).nonzero().flatten()
            if len(better):
                x_adv.index_copy_(0, better, asked[better])
                lowest.index_copy_(0, better, margin[better])
        last[rows] = x_adv
        return last

    def _side(self, query: int, x: Tensor) -> int:
        height, width = x.shape[2:]
        progress = 10_000 * query / self.queries
        share = self.initial_share / 2 ** sum(progress > milestone for milestone in MILESTONES)
        side = max(round(math.sqrt(share * height * width)), 1)
        if self.norm != "linf":
            side = max(side + 1 - side % 2, SMALLEST_PYRAMIDS)  # odd, so that it has a middle
        return min(side, height, width)


def _to_the_edge(x_adv: Tensor, x: Tensor, draws: Tensor, side: int, epsilon: float) -> Tensor:
    """Return the candidates with a window at the edge of the box, in one sign for each channel."""
    window, signs = _window(draws[:, :2], side, x), draws[:, 5:, None]
    old, pixels = x_adv.flatten(2).gather(2, window), x.flatten(2).gather(2, window)
    new, other = (pixels + epsilon * signs).clamp(0, 1), (pixels - epsilon * signs).clamp(0, 1)
    there = (new == old).all(2, keepdim=True).all(1, keepdim=True)  # already: a query lost
    new = torch.where(there, other, new)
    return x_adv.flatten(2).scatter(2, window, new).view_as(x)


def _two_pyramids(
    x_adv: Tensor, x: Tensor, draws: Tensor, side: int, epsilon: float, order: float
) -> Tensor:
    """Return the candidates with what is free put into one window (algorithm 3 of the paper)."""
    perturbation = (x_adv - x).flatten(2)  # (N, C, H * W)
    unused = (epsilon**order - _mass(perturbation, order).sum(1, keepdim=True)).clamp_min(0)
    window, emptied = _window(draws[:, :2], side, x), _window(draws[:, 2:4], side, x)
    old, released = perturbation.gather(2, window), perturbation.gather(2, emptied)
    perturbation.scatter_(2, emptied, 0.0)
    kept = perturbation.gather(2, window)
    free = _mass(released, order) + _mass(kept, order) + unused / x.shape[1]  # (N, C, 1)

    lying = _pyramids(side).to(x)
    shape = torch.where(draws[:, 4, None, None] < 0.5, lying, lying.T.contiguous()).flatten(1)
    new = draws[:, 5:, None] * _unit(shape[:, None], order) + _unit(old, order)
    perturbation.scatter_(2, window, _unit(new, order) * free ** (1 / order))
    return (x + perturbation.view_as(x)).clamp(0, 1)


def _tiled(x: Tensor, epsilon: float, noise: Noise, order: float) -> Tensor:
    """Return the images under a grid of pyramids, in one sign for each tile and channel."""
    height, width = x.shape[2:]
    side = max(min(height, width) // TILES, 1)
    rows, columns = height // side, width // side
    signs = _signs(noise.uniform(x.new_empty(*x.shape[:2], rows, columns)))
    grid = signs.repeat_interleave(side, 2).repeat_interleave(side, 3)
    grid = grid * _pyramids(side).to(x).repeat(rows, columns)
    top, left = (height - rows * side) // 2, (width - columns * side) // 2
    grid = F.pad(grid, (left, width - columns * side - left, top, height - rows * side - top))
    return (x + epsilon * _unit(grid.flatten(1), order).view_as(x)).clamp(0, 1)


@cache
def _pyramids(side: int) -> Tensor:
    """Return a window of two pyramids of opposite sign, one above the other."""
    return torch.cat([_pyramid(side // 2, side), -_pyramid(side - side // 2, side)])


def _pyramid(height: int, width: int) -> Tensor:
    """Return a rectangle that rises from 1/n^2 at the rim by 1/k^2 a ring to its middle."""
    down, across = torch.arange(height)[:, None], torch.arange(width)
    ring = torch.maximum((down - height // 2).abs(), (across - width // 2).abs())
    rises = 1 / torch.arange(1.0, max(height, width) // 2 + 2) ** 2
    return rises.flip(0).cumsum(0).flip(0)[ring]


def _window(corner: Tensor, side: int, x: Tensor) -> Tensor:
    """Return the places of each image's window in its flat channels, (N, C, side * side)."""
    height, width = x.shape[2:]
    top = (corner[:, 0] * (height - side + 1)).long()
    left = (corner[:, 1] * (width - side + 1)).long()
    step = torch.arange(side, device=x.device)
    first = (step[:, None] * width + step).flatten()  # of a window in the first corner
    return ((top * width + left)[:, None, None] + first).expand(-1, x.shape[1], -1)


def _draws(x: Tensor, noise: Noise, queries: int) -> Iterator[Tensor]:
    """Yield for each query (N, 5 + C) numbers: two corners and a turn, uniform, and signs."""
    for first in range(0, queries, DRAWN_AT_ONCE):
        count = min(DRAWN_AT_ONCE, queries - first)
        draws = noise.uniform(x.new_empty(len(x), count, 5 + x.shape[1]))
        draws[:, :, 5:] = _signs(draws[:, :, 5:])
        yield from draws.unbind(1)


def _margin(driver: Driver, x_adv: Tensor, rows: Tensor) -> Tensor:
    """Return by how much the label's score exceeds the others; infinite without an answer."""
    scores, label = driver.logits(x_adv, rows), driver.y[rows, None]
    others = scores.scatter(1, label, -torch.inf).amax(1)
    answered = scores.any(1)  # the driver gives zeros for none
    return torch.where(answered, scores.gather(1, label)[:, 0] - others, torch.inf)


def _signs(draws: Tensor) -> Tensor:
    return torch.where(draws < 0.5, -1.0, 1.0).to(draws.dtype)


def _mass(values: Tensor, order: float) -> Tensor:
    """Return the length in that norm to the power of its order: what adds up over windows."""
    return (values.square() if order == 2 else values.abs()).sum(-1, keepdim=True)


def _unit(values: Tensor, order: float) -> Tensor:
    length = _mass(values, order) ** (1 / order)
    return values / length.clamp_min(1e-12)
