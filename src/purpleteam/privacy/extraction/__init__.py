"""A copy of a model, from its answers: one file a way to choose the questions, in `EXTRACTIONS`.

- `random` noise;  `natural` other people's images;  `active` those that the copy is unsure of;
  `jacobian` small changes of what was asked, towards another answer of the copy
- `extract` asks, trains the copy, and counts on which test images it agrees with the model
"""

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from torch import nn

from purpleteam.core.arrays import Bools, Floats, Pixels
from purpleteam.core.registry import Registry, check_ranges, part_of
from purpleteam.data.images import ImageSet

__all__ = ["EXTRACTIONS", "Course", "Strategy", "part_of"]


@dataclass(eq=False)
class Course:
    """How far an extraction has come.

    Attributes:
        pool: images of the adversary's own; what the model says of them is not known beforehand.
        rng: what is drawn from.
        asked: uint8 images (Q, H, W, C) that were asked about.
        answers: (Q, classes), probabilities, or ones where the labels are.
        copy: the net that learned from these; None before the first.
    """

    pool: ImageSet
    rng: np.random.Generator
    asked: Pixels
    answers: Floats
    copy: nn.Module | None = None
    used: Bools = field(init=False)

    def __post_init__(self) -> None:
        self.used = np.zeros(len(self.pool), bool)

    def fresh(self, rows: np.ndarray) -> Pixels:
        """Return images of the pool by their places, as used from now on."""
        self.used[rows] = True
        return np.asarray(self.pool.images[rows])


@dataclass(frozen=True, kw_only=True)
class Strategy(ABC):
    """A way to choose questions; its fields are its options."""

    name: ClassVar[str] = ""
    ranges: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_ranges(self)

    @abstractmethod
    def questions(self, course: Course, count: int) -> Pixels:
        """Return uint8 images (n, H, W, C) to ask about next, from 1 to `count`.

        Where they are fewer than `count`, the copy learns from the answers before the next are
        chosen.
        """


EXTRACTIONS: Registry[type[Strategy]] = Registry("extraction")
EXTRACTIONS.load(sys.modules[__name__])
