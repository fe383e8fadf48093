"""One trained layer: ridge regression in closed form, from a part's images alone.

There is no chance in it, so there is no seed: one and the same part always gives one and the same
network, bit for bit on one machine. Each part is worked on alone, in tensors of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from purpleteam.certify.partition.features import FEATURES
from purpleteam.certify.partition.learners._base import LEARNERS, Group, Learner, Part, described


@dataclass(frozen=True, kw_only=True)
class Layers(Group):
    """Features times `weights` plus `bias` are the scores."""

    weights: Tensor
    """(FEATURES, parts * classes)."""

    def scores(self, features: Tensor) -> Tensor:
        """Return every network's scores (N, parts, classes) of features (N, FEATURES)."""
        return (features @ self.weights).view(-1, *self.bias.shape) + self.bias

    def network(self, place: int) -> tuple[Tensor, ...]:
        """Return weights and bias of one network."""
        weights = self.weights.view(-1, *self.bias.shape)[:, place]
        return weights, self.bias[place]


@LEARNERS.register("readout")
@dataclass(frozen=True, kw_only=True)
class Readout(Learner):
    """Ridge regression on the fixed layers' output."""

    name: ClassVar[str] = "readout"
    largest: ClassVar[int] = 4096

    ridge: float = 0.02
    """Weight of the squared weights against the squared errors."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ridge > 0:
            raise ValueError(f"ridge must be above 0, not {self.ridge}")

    def fit(self, parts: Sequence[Part], *, first: int, capacity: int, classes: int) -> Group:
        """Return the networks of parts, each a pure function of its images in their order."""
        fitted = [self._fit(part, classes) for part in parts]
        return Layers(
            weights=torch.cat([weights for weights, _ in fitted], dim=1),
            bias=torch.stack([bias for _, bias in fitted]),
        )

    def _fit(self, part: Part, classes: int) -> tuple[Tensor, Tensor]:
        count = part.counts(classes)
        if not len(part.labels):
            return torch.zeros(FEATURES, classes), torch.full((classes,), -torch.inf)
        features = described(part.images, self.turn)  # (n, FEATURES)
        targets = F.one_hot(part.labels, classes) / count.clamp_min(1) ** self.balance
        targets = targets.repeat(len(features) // len(targets), 1)
        mean = targets.mean(dim=0)
        kernel = features @ features.T + self.ridge * torch.eye(len(features))
        weights = features.T @ torch.linalg.solve(kernel, targets - mean)  # n < FEATURES: the dual
        return weights, mean.masked_fill(count == 0, -torch.inf)
