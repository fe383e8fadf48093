"""One trained layer: ridge regression in closed form, from a part's images alone.

There is no chance in it: the same part always gives the same network, bit for bit on one machine.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from purpleteam.certify.features import FEATURES
from purpleteam.certify.learners import LEARNERS, Layers, Learner, part_of
from purpleteam.data.images import ImageSet


@part_of(LEARNERS, "readout")
class Readout(Learner):
    """Ridge regression on the fixed layers' output."""

    largest: ClassVar[int] = 4096
    ranges: ClassVar[str] = "ridge above 0"

    ridge: float = 0.02
    """Weight of the squared weights against the squared errors."""

    def fit(self, parts: Sequence[ImageSet], *, first: int, capacity: int, classes: int) -> Layers:
        weights, bias = zip(*(self._fit(part, classes) for part in parts), strict=True)
        return torch.stack(weights, dim=1).transpose(0, 1), torch.stack(bias)

    def _fit(self, part: ImageSet, classes: int) -> tuple[Tensor, Tensor]:
        if not len(part):
            return torch.zeros(FEATURES, classes), torch.full((classes,), -torch.inf)
        features, labels, counts = self.lesson(part, classes)
        targets = F.one_hot(labels, classes) / counts.clamp_min(1) ** self.balance
        mean = targets.mean(dim=0)
        kernel = features @ features.T + self.ridge * torch.eye(len(features))
        weights = features.T @ torch.linalg.solve(kernel, targets - mean)  # n < FEATURES: the dual
        return weights, mean.masked_fill(counts == 0, -torch.inf)

    def scores(self, networks: Layers, features: Tensor) -> Tensor:
        weights, bias = networks
        side_by_side = weights.transpose(0, 1).flatten(1)  # (FEATURES, parts * classes)
        return (features @ side_by_side).view(-1, *bias.shape) + bias
