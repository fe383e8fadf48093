"""The trained layer of a part's network: ridge regression in closed form, from its images alone.

There is no chance in it, so there is no seed: one and the same part always gives one and the same
model, bit for bit on one machine. Each part is worked on alone, in tensors of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from purpleteam.certify.partition.edges import FEATURES, edge_pairs

__all__ = ["PartModel", "Readout"]


@dataclass(frozen=True)
class PartModel:
    """One part's model: features times `weights` plus `bias` are the scores of the labels.

    Attributes:
        weights: float32, (FEATURES, classes).
        bias: float32, (classes,); minus infinity for a label that the part has no image of, so
            that it is never answered.
    """

    weights: Tensor
    bias: Tensor


@dataclass(frozen=True, kw_only=True)
class Readout:
    """How a part's model is trained."""

    ridge: float = 0.02
    """Weight of the squared weights against the squared errors."""
    balance: float = 0.4
    """A label's targets are divided by its number of images to this power: 1 helps rare ones."""

    turn: float = 12.0
    """Each image is also learned from when it is turned by so many degrees either way."""

    def __post_init__(self) -> None:
        if not self.ridge > 0:
            raise ValueError(f"ridge must be above 0, not {self.ridge}")
        if not 0 <= self.balance <= 1:
            raise ValueError(f"balance must be in [0, 1], not {self.balance}")
        if not 0 <= self.turn <= 180:
            raise ValueError(f"turn must be in [0, 180] degrees, not {self.turn}")

    def fit(self, images: Tensor, labels: Tensor, classes: int) -> PartModel:
        """Return the model of one part, a pure function of its images in their order.

        Args:
            images: float (n, C, H, W) in [0, 1]; n may be 0.
            labels: int64, (n,).
            classes: number of labels.
        """
        if not len(labels):
            return PartModel(torch.zeros(FEATURES, classes), torch.full((classes,), -torch.inf))
        turns = (0.0, self.turn, -self.turn) if self.turn else (0.0,)
        features = torch.cat([edge_pairs(images, turn) for turn in turns])  # (n, FEATURES)
        one_hot = F.one_hot(labels, classes).float()
        count = one_hot.sum(dim=0)
        one_hot = one_hot.repeat(len(turns), 1)
        targets = one_hot / count.clamp_min(1) ** self.balance
        mean = targets.mean(dim=0)
        kernel = features @ features.T + self.ridge * torch.eye(len(features))
        weights = features.T @ torch.linalg.solve(kernel, targets - mean)  # n < FEATURES: the dual
        return PartModel(weights, mean.masked_fill(count == 0, -torch.inf))
