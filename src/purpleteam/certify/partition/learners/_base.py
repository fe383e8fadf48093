"""What every learner promises.

A learner is given the parts that answer together and returns their networks side by side. What
a part's network is may depend on that part's images, their labels and the part's number, and on
nothing else: not on the other parts, nor on how many images they hold.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from purpleteam.certify.partition.features import edge_pairs
from purpleteam.core.registry import Registry


class Part(NamedTuple):
    """One part of the training set."""

    images: Tensor
    """float (n, C, H, W) in [0, 1]; n may be 0."""
    labels: Tensor
    """int64 (n,)."""

    def counts(self, classes: int) -> Tensor:
        """Return how many images each label has, float (classes,)."""
        return torch.bincount(self.labels, minlength=classes).float()


@dataclass(frozen=True, kw_only=True)
class Group(ABC):
    """The networks of some parts, side by side."""

    bias: Tensor
    """(parts, classes); minus infinity for a label that the part has no image of."""

    @property
    def voting(self) -> NDArray[np.bool_]:
        """Which parts have a network: those that are not empty, (parts,)."""
        return np.asarray(np.isfinite(self.bias.numpy()).any(axis=1))

    @abstractmethod
    def scores(self, features: Tensor) -> Tensor:
        """Return every network's scores (N, parts, classes) of features (N, FEATURES)."""

    @abstractmethod
    def network(self, place: int) -> tuple[Tensor, ...]:
        """Return all numbers of one network, layer by layer."""


@dataclass(frozen=True, kw_only=True)
class Learner(ABC):
    """How a part's network is trained."""

    name: ClassVar[str] = ""
    largest: ClassVar[int]
    """Images of one part that it has the memory to learn from."""

    balance: float = 0.4
    """An image weighs less by its label's number of images to this power: 1 helps rare ones."""
    turn: float = 12.0
    """Each image is also learned from when it is turned by so many degrees either way."""

    def __post_init__(self) -> None:
        if not 0 <= self.balance <= 1:
            raise ValueError(f"balance must be in [0, 1], not {self.balance}")
        if not 0 <= self.turn <= 180:
            raise ValueError(f"turn must be in [0, 180] degrees, not {self.turn}")

    @abstractmethod
    def fit(self, parts: Sequence[Part], *, first: int, capacity: int, classes: int) -> Group:
        """Return the networks of the parts of number `first`, `first + 1`, ...

        `capacity` is how many images every part has room for, whatever it holds.
        """

    def describe(self) -> dict[str, Any]:
        """Return the learner's name and settings, for a record."""
        return {"name": self.name} | asdict(self)


LEARNERS: Registry[type[Learner]] = Registry("learner")


def described(images: Tensor, degrees: float) -> Tensor:
    """Return the features of images, and of the same turned by so many degrees either way.

    Returns:
        (n, FEATURES), or (3 n, FEATURES) where `degrees` is not 0.
    """
    turns = (0.0, degrees, -degrees) if degrees else (0.0,)
    return torch.cat([edge_pairs(images, turn) for turn in turns])
