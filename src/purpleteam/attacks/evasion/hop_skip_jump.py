"""HopSkipJump (Chen et al. 2020, arXiv:1904.02144): asks for labels alone."""

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from purpleteam.attacks.evasion import ATTACKS, Driver, MinimumNormAttack, Noise, part_of
from purpleteam.attacks.norms import LEVELS, NORMS, column, distance, quantise, steepest

STARTS, STROKES = 8, 4  # images of each kind of noise, and with a stroke, tried as a start
STROKE = 14  # half the width of a stroke, as a part of the image's shorter side: 2 pixels of 28
BLOCKS = (1, 4, 7, 2)  # pixels along a block of noise; to many a net all fine noise is one class
JUMP_HALVINGS = 20  # after these a direction is given up
BYTE_HALVINGS = 10  # finer differences on a line are lost in steps of 1/255
ASKED_AT_ONCE = 25  # directions for each image, so that those for many images fit into memory


@part_of(ATTACKS, "hop_skip_jump")
class HopSkipJump(MinimumNormAttack):
    """Walks along the boundary towards the image, by gradients estimated from labels."""

    knowledge = "decision-based"
    norms = ("l2", "linf")
    ranges = "samples_at_first at least 2"

    queries: int = 10_000
    """Most model calls for one image."""
    samples_at_first: int = 100
    """Directions in the first estimate; the t-th takes sqrt(t) times as many."""

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        x_adv = x.clone()
        for other in _others(x, noise):  # the first that the model calls something else is kept
            rows = (~driver.found & driver.standing).nonzero().flatten()
            errs = driver.errs(other[rows], rows)
            x_adv[rows[errs]] = other[rows[errs]]
        finest = math.prod(x.shape[1:]) ** (-1.5 if self.norm == "l2" else -2.0)
        halvings = math.ceil(-math.log2(finest))
        if driver.nets.model.quantised:
            halvings = min(halvings, BYTE_HALVINGS)
        for step in itertools.count():
            # those with a way to go: neither wrong as they are nor without a start
            open_ = driver.standing & driver.found & (driver.nearest_distance > 0)
            rows = open_.nonzero().flatten()
            if len(rows) == 0:
                break
            now, images = x_adv[rows], x[rows]
            if step > 0:
                length = column(distance(now, images, self.norm).to(x.dtype))
                draws = _draws(x, noise, int(self.samples_at_first * math.sqrt(step)), rows)
                slope = _slope(driver, now, length / x[0].numel(), draws, rows)
                jump = length / math.sqrt(step) * steepest(slope, self.norm)
                now = _jumped(driver, now, jump, rows)
            low, high = x.new_zeros(len(rows), 1, 1, 1), x.new_ones(len(rows), 1, 1, 1)
            for _ in range(halvings):  # back to where it just errs (algorithm 1)
                middle = (low + high) / 2
                errs = column(driver.errs(_between(images, now, middle, self.norm), rows))
                low, high = torch.where(errs, low, middle), torch.where(errs, middle, high)
            x_adv[rows] = _between(images, now, high, self.norm)
        return x_adv


def _others(x: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Yield other images; first those that look like one, since an app may refuse noise."""
    yield from (x, x.flip(3), x.flip(2), x.flip(2, 3))
    if x.shape[2] == x.shape[3]:  # turned by quarters
        yield from (x.rot90(1, (2, 3)), x.rot90(3, (2, 3)), x.transpose(2, 3))
    for _ in range(STROKES):
        yield _stroked(x, noise)
    for block in BLOCKS:
        down = torch.arange(x.shape[2], device=x.device) // block
        across = torch.arange(x.shape[3], device=x.device) // block
        for _ in range(STARTS):
            yield noise.uniform(x)[:, :, down][:, :, :, across]
    yield 1 - x
    for grey in (0.0, 1.0, 0.5):
        yield torch.full_like(x, grey)


def _stroked(x: Tensor, noise: Noise) -> Tensor:
    """Return the images with one straight stroke each, white, between two random points."""
    height, width = x.shape[2:]
    ends = noise.uniform(x.new_empty(len(x), 4)) * x.new_tensor([height, width, height, width])
    first, second = ends[:, None, None, :2], ends[:, None, None, 2:]
    grid = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixel = torch.stack(grid, -1).to(x)[None]  # (1, H, W, 2)
    along = second - first
    share = ((pixel - first) * along).sum(-1) / along.square().sum(-1).clamp_min(1e-9)
    nearest = first + share.clamp(0, 1)[..., None] * along
    stroke = torch.linalg.vector_norm(pixel - nearest, dim=-1) < min(height, width) / STROKE
    return torch.where(stroke[:, None], torch.ones_like(x), x)


def _between(x: Tensor, x_adv: Tensor, share: Tensor, norm: str) -> Tensor:
    """Return the point at that share of the distance in `norm`."""
    perturbation = x_adv - x
    if norm == "l2":
        return x + share * perturbation
    length = column(NORMS[norm].length(perturbation))
    return x + torch.minimum(torch.maximum(perturbation, -share * length), share * length)


def _slope(
    driver: Driver, x_adv: Tensor, radius: Tensor, draws: Iterator[Tensor], rows: Tensor
) -> Tensor:
    """Return the mean of random directions, each in the sign of the model's answer, centred."""
    if driver.nets.model.quantised:
        radius = radius.clamp_min(math.sqrt(x_adv[0].numel()) / LEVELS)  # a step for each pixel
    total, signed = torch.zeros_like(x_adv), torch.zeros_like(x_adv)
    answers, asked = x_adv.new_zeros(len(x_adv), 1, 1, 1), 0
    for directions in draws:  # (n, samples, C, H, W)
        count = directions.shape[1]
        centre, reach = x_adv[:, None], radius[:, None]
        candidates = (centre + reach * directions).clamp(0, 1)
        if driver.nets.model.quantised:
            candidates = quantise(candidates)
        went = (candidates - centre) / reach
        errs = driver.errs(candidates.flatten(0, 1), rows.repeat_interleave(count))
        signs = 2 * errs.view(-1, count, 1, 1, 1).to(x_adv.dtype) - 1
        total, signed = total + went.sum(1), signed + (signs * went).sum(1)
        answers, asked = answers + signs.sum(1), asked + count
    mean = answers / asked
    return torch.where(mean.abs() == 1, signed, signed - mean * total)


def _draws(x: Tensor, noise: Noise, samples: int, rows: Tensor) -> Iterator[Tensor]:
    """Yield directions of length 1 for the images `rows`; drawn for all, whoever is left."""
    for first in range(0, samples, ASKED_AT_ONCE):
        count = min(ASKED_AT_ONCE, samples - first)
        drawn = noise.normal(x.new_empty(len(x), count, *x.shape[1:]))[rows]
        length = torch.linalg.vector_norm(drawn.flatten(2), dim=2)
        yield drawn / length.clamp_min(1e-12).view(*length.shape, 1, 1, 1)


def _jumped(driver: Driver, x_adv: Tensor, jump: Tensor, rows: Tensor) -> Tensor:
    """Return the candidates moved by the jump, halved until the model errs there."""
    moved = x_adv.clone()
    waiting = torch.arange(len(rows), device=rows.device)
    for _ in range(JUMP_HALVINGS):
        if len(waiting) == 0:
            break
        there = (x_adv[waiting] + jump[waiting]).clamp(0, 1)
        errs = driver.errs(there, rows[waiting])
        moved[waiting[errs]] = there[errs]
        waiting = waiting[~errs]
        jump = jump / 2
    return moved
