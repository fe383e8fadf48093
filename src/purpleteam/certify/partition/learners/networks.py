"""Tiny networks of two trained layers, by gradient descent, many parts at a time.

Every part has room for the same number of images, so that all steps are multiplications of one
shape, in which no part reaches another; the room that it does not use weighs nothing. First
weights are drawn from the seed and the part's number.

Gradient descent moves the first layer's weights W only along the part's images X (the representer
theorem, Schoelkopf, Herbrich and Smola, COLT 2001): W = W0 + X^T A. So it is A that is stepped, by
the very steps that W would take, and an image costs as many numbers as a part has images, not as
many as an image has features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from purpleteam.certify.partition.features import FEATURES
from purpleteam.certify.partition.learners._base import LEARNERS, Group, Learner, Part, described

SCALE = 8.0  # an image's features have length 1; a network learns from longer ones sooner
FIRST = 0.3  # first weights of the first layer, in units of He et al. (2015, arXiv:1502.01852)


@dataclass(frozen=True, kw_only=True)
class TwoLayers(Group):
    """Features through a rectified layer and a linear one."""

    inner: Tensor
    """(FEATURES, parts * width)."""
    inner_bias: Tensor
    """(parts * width,)."""
    outer: Tensor
    """(parts, width, classes)."""

    def scores(self, features: Tensor) -> Tensor:
        """Return every network's scores (N, parts, classes) of features (N, FEATURES)."""
        parts, width, _ = self.outer.shape
        hidden = (features @ self.inner + self.inner_bias).relu_().view(-1, parts, width)
        scores = hidden.transpose(0, 1) @ self.outer + self.bias[:, None]
        return scores.transpose(0, 1)

    def network(self, place: int) -> tuple[Tensor, ...]:
        """Return the layers of one network, with their biases."""
        units = slice(place * self.outer.shape[1], (place + 1) * self.outer.shape[1])
        return self.inner[:, units], self.inner_bias[units], self.outer[place], self.bias[place]


@LEARNERS.register("networks")
@dataclass(frozen=True, kw_only=True)
class TinyNetworks(Learner):
    """Cross-entropy, full batches, momentum, a learning rate that falls in a line to 0."""

    name: ClassVar[str] = "networks"
    largest: ClassVar[int] = 512

    width: int = 32
    """Units of the layer between."""
    steps: int = 100
    learning_rate: float = 0.1
    momentum: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, not {self.learning_rate}")
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1], not {self.momentum}")

    def fit(self, parts: Sequence[Part], *, first: int, capacity: int, classes: int) -> Group:
        """Return the networks of parts, each a function of its images, its number and the seed."""
        room = capacity * (3 if self.turn else 1)
        x = torch.zeros(len(parts), room, FEATURES)
        wanted = torch.zeros(len(parts), room, classes)  # one-hot labels
        weight = torch.zeros(len(parts), room, 1)  # of each image in the loss; rows sum to 1
        absent = torch.ones(len(parts), classes, dtype=torch.bool)
        for place, part in enumerate(parts):
            if not len(part.labels):
                continue
            features = SCALE * described(part.images, self.turn)
            labels = part.labels.repeat(len(features) // len(part.labels))
            count = part.counts(classes)
            x[place, : len(labels)] = features
            wanted[place, torch.arange(len(labels)), labels] = 1
            of_each = count[labels] ** -self.balance
            weight[place, : len(labels), 0] = of_each / of_each.sum()
            absent[place] = count == 0
        layers = self._descend(x, wanted, weight, *self._drawn(first, len(parts), classes))
        inner, inner_bias, outer, bias = layers
        return TwoLayers(
            inner=SCALE * inner.transpose(0, 1).flatten(1),
            inner_bias=inner_bias.flatten(),
            outer=outer,
            bias=bias[:, 0].masked_fill(absent, -torch.inf),
        )

    def _drawn(self, first: int, parts: int, classes: int) -> tuple[Tensor, Tensor]:
        """Return the first weights of both layers: the seed and a part's number say which."""
        inner, outer = [], []
        for number in range(first, first + parts):
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
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return both layers, each with its bias, after all steps."""
        parts, room, _ = x.shape
        kernel, began = x @ x.mT, x @ inner
        along = torch.zeros(parts, room, self.width)  # A of W = W0 + X^T A
        biases = (torch.zeros(parts, 1, self.width), torch.zeros(parts, 1, outer.shape[2]))
        steps = [along, outer, *biases]
        pace = [torch.zeros_like(one) for one in steps]
        for step in range(self.steps):
            along, outer, inner_bias, bias = steps
            before = began + kernel @ along + inner_bias
            hidden = before.relu()
            wrong = ((hidden @ outer + bias).softmax(dim=2) - wanted) * weight
            back = (wrong @ outer.mT) * (before > 0)
            slopes = (
                back,
                hidden.mT @ wrong,
                back.sum(dim=1, keepdim=True),
                wrong.sum(dim=1, keepdim=True),
            )
            rate = self.learning_rate * (1 - step / self.steps)
            pace = [self.momentum * one + slope for one, slope in zip(pace, slopes, strict=True)]
            steps = [one - rate * by for one, by in zip(steps, pace, strict=True)]
        along, outer, inner_bias, bias = steps
        return inner + x.mT @ along, inner_bias, outer, bias
