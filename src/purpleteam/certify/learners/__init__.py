"""How the network of a part is trained; one learner in each file.

- `readout`    one layer in closed form: exact, without chance, the fastest
- `networks`   two layers by gradient descent from random weights, many parts at a time

A part's network may depend on that part's images, labels and number, and on nothing else.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from purpleteam.certify.features import edge_pairs
from purpleteam.core.registry import Registry, check_ranges, part_of
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import to_batch

__all__ = ["LEARNERS", "Layers", "Learner", "part_of", "seeded"]

Layers = tuple[Tensor, ...]
"""The networks of some parts, layer by layer; the parts lie along the first axis of each layer.

The last is the bias (parts, classes): minus infinity for a label that the part has no image of.
"""


@dataclass(frozen=True, kw_only=True)
class Learner(ABC):
    """How a part's network is trained."""

    name: ClassVar[str] = ""
    largest: ClassVar[int]
    """Images of one part that it has the memory to learn from."""
    ranges: ClassVar[str] = "balance from 0 to 1; turn from 0 to 180 degrees"
    """The ranges of the options that the class adds, as `check_ranges` reads them."""

    balance: float = 0.4
    """An image weighs less by its label's number of images to this power: 1 helps rare ones."""
    turn: float = 12.0
    """Degrees by which each image is turned either way, to be learned from as well."""

    def __post_init__(self) -> None:
        check_ranges(self)

    @abstractmethod
    def fit(self, parts: Sequence[ImageSet], *, first: int, capacity: int, classes: int) -> Layers:
        """Return the networks of parts `first`, `first + 1`, ...; each has room for `capacity`."""

    @abstractmethod
    def scores(self, networks: Layers, features: Tensor) -> Tensor:
        """Return every network's scores (N, parts, classes) of features (N, FEATURES)."""

    def lesson(self, part: ImageSet, classes: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features of images as they are and turned, the labels, and their counts."""
        turns = (0.0, self.turn, -self.turn) if self.turn else (0.0,)
        images, labels = to_batch(part.images[:]), torch.tensor(part.labels)
        features = torch.cat([edge_pairs(images, turn) for turn in turns])
        counts = torch.bincount(labels, minlength=classes).float()
        return features, labels.repeat(len(turns)), counts

    def describe(self) -> dict[str, Any]:
        return {"name": self.name} | asdict(self)


LEARNERS: Registry[type[Learner]] = Registry("learner")
LEARNERS.load(sys.modules[__name__])


def seeded(name: str, seed: int) -> Learner:
    """Return the learner of that name, with a seed where it has one."""
    kind = LEARNERS[name]
    chance = any(field.name == "seed" for field in fields(kind))
    return kind(seed=seed) if chance else kind()  # type: ignore[call-arg]
