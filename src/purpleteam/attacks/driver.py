"""What an attack may ask of the model, and what it is spared: batches, precision, dropping.

An attack is written as its formula over the whole batch. The driver answers `gradient` in
micro-batches that fit the cache, in bfloat16 where the hardware is fast at it, and only for the
images that still stand: an image is dropped as soon as a candidate inside the ball makes the
model err, which is always confirmed in float32. A dropped image has gradient 0, and so has one
whose gradient does not exist or is NaN: `soundness` says what such an evaluation is worth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from purpleteam.attacks.balls import Norm, project
from purpleteam.models.devices import fast_autocast
from purpleteam.models.inference import Classifier

__all__ = ["Cost", "Driver"]

MICRO_BATCH = 64


@dataclass
class Cost:
    """Model calls so far, counted per image."""

    forward: int = 0
    backward: int = 0


class Driver:
    """The model as one attack sees it on one batch. Holds what was found so far."""

    def __init__(
        self, model: Classifier, x: Tensor, y: Tensor, *, epsilon: float, norm: Norm, cost: Cost
    ) -> None:
        self.model = model
        self.x = x  # (N, C, H, W)
        self.y = y  # (N,)
        self.epsilon = epsilon
        self.norm: Norm = norm
        self.cost = cost
        self.broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.found = x.clone()
        self.queries = torch.zeros(len(x), dtype=torch.int64, device=x.device)

    def gradient(
        self, x_adv: Tensor, loss: Callable[[Tensor, Tensor], Tensor] | None = None
    ) -> Tensor:
        """Return the gradient of the loss (default: cross-entropy) at `x_adv`, (N, C, H, W)."""
        result = torch.zeros_like(x_adv)
        for rows in self._standing():
            part = x_adv[rows].detach().requires_grad_(True)
            with torch.enable_grad(), fast_autocast(part.device):
                logits = self.model(part).float()
                value = (loss or _cross_entropy)(logits, self.y[rows]).sum()
            result[rows] = _slope(value, part).to(result.dtype)
            self.cost.forward += len(rows)
            self.cost.backward += len(rows)
            self.queries[rows] += 1
            self._confirm(rows[logits.argmax(1) != self.y[rows]], x_adv)
        return result

    def settle(self, x_adv: Tensor) -> Tensor:
        """Judge the last candidates and return, for each image, what broke it or the candidate."""
        for rows in self._standing():
            self._confirm(rows, x_adv)
        last = project(x_adv, self.x, self.epsilon, self.norm)
        last = torch.where(torch.isfinite(last), last, self.x)
        return torch.where(self.broken.view(-1, 1, 1, 1), self.found, last)

    def _standing(self) -> tuple[Tensor, ...]:
        rows = (~self.broken).nonzero().flatten()
        return torch.split(rows, MICRO_BATCH) if len(rows) else ()

    @torch.no_grad()
    def _confirm(self, rows: Tensor, x_adv: Tensor) -> None:
        """Drop the rows that the model gets wrong in float32, inside the ball and the range."""
        if len(rows) == 0:
            return
        candidate = project(x_adv[rows].detach(), self.x[rows], self.epsilon, self.norm)
        logits = self.model(candidate)
        self.cost.forward += len(rows)
        self.queries[rows] += 1
        wrong = (logits.argmax(1) != self.y[rows]) & torch.isfinite(candidate).flatten(1).all(1)
        self.found[rows[wrong]] = candidate[wrong]
        self.broken[rows[wrong]] = True


def _slope(value: Tensor, x: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(x)
    (slope,) = torch.autograd.grad(value, x, allow_unused=True)
    return torch.zeros_like(x) if slope is None else torch.nan_to_num(slope)


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")
