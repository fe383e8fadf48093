"""Tiny networks of two trained layers, by gradient descent, many parts at a time.

Every part has room for the same number of images, so that all steps are multiplications of one
shape, in which no part reaches another; the room that it does not use weighs nothing.

Gradient descent moves the first layer's weights W only along the part's images X (the representer
theorem, Schoelkopf, Herbrich and Smola, COLT 2001): W = W0 + X^T A. So A is stepped, by the very
steps that W would take: fewer numbers, as a part has fewer images than an image has features.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from purpleteam.certify.features import FEATURES
from purpleteam.certify.learners import LEARNERS, Layers, Learner, part_of
from purpleteam.data.images import ImageSet

SCALE = 8.0  # an image's features have length 1; a network learns from longer ones sooner
FIRST = 0.3  # first weights of the first layer, in units of He et al. (2015, arXiv:1502.01852)


@part_of(LEARNERS, "networks")
class TinyNetworks(Learner):
    """Cross-entropy, full batches, momentum, a learning rate that falls in a line to 0."""

    largest: ClassVar[int] = 512
    ranges: ClassVar[str] = (
        "width at least 1; steps at least 1; learning_rate above 0; momentum from 0 to 1"
    )

    width: int = 32
    """Units of the layer between."""
    steps: int = 100
    learning_rate: float = 0.1
    momentum: float = 0.9
    seed: int = 0

    def fit(self, parts: Sequence[ImageSet], *, first: int, capacity: int, classes: int) -> Layers:
        """Return both layers, each with its bias; a function of images, number and seed."""
        room = capacity * (3 if self.turn else 1)
        x = torch.zeros(len(parts), room, FEATURES)
        wanted = torch.zeros(len(parts), room, classes)  # one-hot labels
        weight = torch.zeros(len(parts), room, 1)  # of each image in the loss; rows sum to 1
        absent = torch.ones(len(parts), classes, dtype=torch.bool)
        for place, part in enumerate(parts):
            if not len(part):
                continue
            features, labels, counts = self.lesson(part, classes)
            x[place, : len(labels)] = SCALE * features
            wanted[place, torch.arange(len(labels)), labels] = 1
            of_each = counts[labels] ** -self.balance
            weight[place, : len(labels), 0] = of_each / of_each.sum()
            absent[place] = counts == 0
        inner, outer = self.first_weights(range(first, first + len(parts)), classes)
        along, outer, inner_bias, bias = self._descend(x, wanted, weight, inner, outer)
        inner = SCALE * (inner + x.mT @ along).transpose(0, 1).contiguous()
        bias = bias[:, 0].masked_fill(absent, -torch.inf)
        return inner.transpose(0, 1), inner_bias[:, 0], outer, bias

    def scores(self, networks: Layers, features: Tensor) -> Tensor:
        inner, inner_bias, outer, bias = networks
        parts, width, _ = outer.shape
        side_by_side = inner.transpose(0, 1).flatten(1)  # (FEATURES, parts * width)
        hidden = (features @ side_by_side + inner_bias.flatten()).relu_().view(-1, parts, width)
        return (hidden.transpose(0, 1) @ outer + bias[:, None]).transpose(0, 1)

    def first_weights(self, numbers: Sequence[int], classes: int) -> tuple[Tensor, Tensor]:
        """Return the first weights of both layers: the seed and a part's number say which."""
        inner, outer = [], []
        for number in numbers:
            chance = np.random.default_rng([self.seed, number])
            inner.append(chance.standard_normal((FEATURES, self.width), np.float32))
            outer.append(chance.standard_normal((self.width, classes), np.float32))
        spread = FIRST * (2 / SCALE**2) ** 0.5, (1 / self.width) ** 0.5
        return (
            torch.from_numpy(np.stack(inner)) * spread[0],
            torch.from_numpy(np.stack(outer)) * spread[1],
        )

    def _descend(
        self, x: Tensor, wanted: Tensor, weight: Tensor, inner: Tensor, outer: Tensor
    ) -> list[Tensor]:
        """Return A of W = W0 + X^T A, the outer layer and both biases after all steps."""
        kernel, began = x @ x.mT, x @ inner
        along = torch.zeros_like(began)
        biases = (torch.zeros(len(x), 1, units) for units in outer.shape[1:])
        weights = [along, outer, *biases]
        pace = [torch.zeros_like(layer) for layer in weights]
        for step in range(self.steps):
            along, outer, inner_bias, bias = weights
            before = began + kernel @ along + inner_bias
            hidden = before.relu()
            wrong = ((hidden @ outer + bias).softmax(dim=2) - wanted) * weight
            back = (wrong @ outer.mT) * (before > 0)
            shifts = (term.sum(dim=1, keepdim=True) for term in (back, wrong))
            slopes = (back, hidden.mT @ wrong, *shifts)
            rate = self.learning_rate * (1 - step / self.steps)
            pace = [self.momentum * past + slope for past, slope in zip(pace, slopes, strict=True)]
            weights = [layer - rate * by for layer, by in zip(weights, pace, strict=True)]
        return weights
