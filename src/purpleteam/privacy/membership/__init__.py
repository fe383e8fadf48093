"""Membership inference: has a model learned this image? One file an attack; `MEMBERSHIP` has them.

- `loss`, `entropy` need the model's scores alone; `merlin` asks about neighbours too
- `lira`, `rmia`, `bavaria` compare with shadow models, all with the same ones
- `label_only` needs labels, of moved copies
- `measure` what an attack finds, and what it finds where there is nothing to find
"""

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
from scipy.special import log_softmax, logsumexp

from purpleteam.core.arrays import Bools, Floats, Singles
from purpleteam.core.registry import Registry, check_ranges, part_of
from purpleteam.data.images import ImageSet
from purpleteam.models.black_box import Gives
from purpleteam.privacy.questions import Ask

__all__ = ["MEMBERSHIP", "Evidence", "MembershipAttack", "part_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What an adversary has: images, the model to ask, and perhaps shadow models. Not the truth.

    Attributes:
        images: N images with their labels, of which nobody told whether they were learned.
        ask: the model.
        shadows: float32 logits (S, N, classes) of shadow models on the images; none for S = 0.
        inside: (S, N), whether a shadow model learned an image.
        seed: of what an attack draws.
    """

    images: ImageSet
    ask: Ask
    shadows: Singles = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    inside: Bools = field(default_factory=lambda: np.zeros((0, 0), bool))
    seed: int = 0

    def first(self, count: int) -> "Evidence":
        """Return the same of the first images; what was asked about all is kept for all."""
        if count >= len(self.images):
            return self
        return replace(
            self,
            images=self.images.first(count),
            shadows=self.shadows[:, :count],
            inside=self.inside[:, :count],
        )

    @cached_property
    def scores(self) -> Singles:
        """The model's scores (N, classes)."""
        return self.ask(np.asarray(self.images.images))

    @cached_property
    def chances(self) -> Floats:
        """Logarithms of the model's probabilities (N, classes)."""
        return np.asarray(log_softmax(self.scores.astype(np.float64), axis=1))

    @cached_property
    def leads(self) -> Floats:
        """The model's `lead_of` the images, (N,)."""
        return lead_of(self.scores, self.images)

    @cached_property
    def shadow_leads(self) -> Floats:
        """The shadow models' `lead_of` the images, (S, N)."""
        return np.stack([lead_of(scores, self.images) for scores in self.shadows])


def lead_of(scores: Singles, images: ImageSet) -> Floats:
    """Return log p - log(1 - p) of the true label, of scores (N, classes): about normal."""
    rows, wide = np.arange(len(scores)), scores.astype(np.float64)
    own = wide[rows, images.labels]
    wide[rows, images.labels] = -np.inf
    return np.asarray(own - logsumexp(wide, axis=1))


@dataclass(frozen=True, kw_only=True)
class MembershipAttack(ABC):
    """An attack; its fields are its options."""

    name: ClassVar[str] = ""
    needs_shadows: ClassVar[bool] = False
    """Whether it compares with shadow models."""
    answers: ClassVar[Gives] = "scores"
    """What it needs of the model."""
    ranges: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def queries(self) -> int:
        """How many questions about each image the model has to answer."""
        return 1

    @abstractmethod
    def score(self, evidence: Evidence) -> Floats:
        """Return (N,) scores, the higher the likelier learned; NaN where there is no answer."""


MEMBERSHIP: Registry[type[MembershipAttack]] = Registry("membership attack")
MEMBERSHIP.load(sys.modules[__name__])
