"""What the true trigger may look like, given one that a scan recovered.

An inversion finds a trigger that works, not the one that was planted: often a few pixels beside
it, weaker or stronger, or a patch for what was blended into the whole image. So it is varied at
random, and an adversary adds to it whatever opens the net's backdoor again as it is repaired.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from purpleteam.defences.repair._base import Stamp
from purpleteam.defences.repair._losses import answers

__all__ = ["Adversary", "moved", "rolled", "scaled", "where_it_leads"]


def rolled(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return images (N, C, H, W), each moved down and right by its own number, around the edge."""
    n, channels, height, width = x.shape
    row = (torch.arange(height, device=x.device) - rows[:, None]) % height  # (N, H)
    column = (torch.arange(width, device=x.device) - columns[:, None]) % width  # (N, W)
    image = torch.arange(n, device=x.device)[:, None, None, None]
    channel = torch.arange(channels, device=x.device)[None, :, None, None]
    return x[image, channel, row[:, None, :, None], column[:, None, None, :]]


def moved(trigger: Stamp, x: Tensor, nearby: int, rng: torch.Generator) -> Tensor:
    """Return images with the trigger up to `nearby` pixels from its place; they stay in theirs."""
    rows, columns = torch.randint(-nearby, nearby + 1, (2, len(x)), generator=rng).to(x.device)
    return rolled(trigger.apply(rolled(x, -rows, -columns)), rows, columns)


def scaled(
    x: Tensor, stamped: Tensor, weakest: float, strongest: float, rng: torch.Generator
) -> Tensor:
    """Return images with what was changed scaled by a random factor each, in [0, 1]."""
    spread = torch.rand(len(x), 1, 1, 1, generator=rng).to(x.device)
    factor = weakest + (strongest - weakest) * spread
    return (x + factor * (stamped - x)).clamp(0, 1)


def where_it_leads(model: nn.Module, trigger: Stamp, x: Tensor) -> int | None:
    """Return the label that most images change to with the trigger; None if none changes."""
    with torch.no_grad():
        before, after = answers(model, x).argmax(1), answers(model, trigger.apply(x)).argmax(1)
    changed = after[before != after]
    return int(changed.bincount().argmax()) if len(changed) else None


class Adversary:
    """One addition to all images, pushed towards the target a step a batch, and begun anew.

    The push is universal adversarial training's (Shafahi et al. 2020, arXiv:1811.11304).
    """

    def __init__(self, x: Tensor, target_label: int, size: float, restart: int, seed: int) -> None:
        self.target_label = target_label
        self.most = size * x[0].numel()
        """Largest L1 norm of the addition."""
        self.restart = restart
        self.rng = torch.Generator().manual_seed(seed)
        self.calls = 0
        self.addition = torch.zeros_like(x[:1])

    def worsen(self, net: nn.Module, x: Tensor) -> Tensor:
        """Take a step against the net as it is and return images (N, C, H, W) with the addition."""
        if self.calls % self.restart == 0:
            start = 0.01 * torch.randn(self.addition.shape, generator=self.rng)
            self.addition = start.to(x.device).requires_grad_(True)
            self.optimizer = torch.optim.Adam([self.addition], lr=0.05)
        self.calls += 1
        target = torch.full((len(x),), self.target_label, device=x.device)
        loss = F.cross_entropy(answers(net, (x + self.addition).clamp(0, 1)), target)
        (self.addition.grad,) = torch.autograd.grad(loss, self.addition)
        self.optimizer.step()
        with torch.no_grad():
            self.addition *= (self.most / self.addition.abs().sum().clamp(min=1e-12)).clamp(max=1)
            return (x + self.addition).clamp(0, 1)
