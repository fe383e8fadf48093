"""An image of a class, from the model: one file an attack, in `INVERSIONS`.

- `gradient` climbs the class's probability;  `score_based` does so by questions alone
- `prior`    what images look like: nothing, smooth, or like those of a pool
- `judge`    is it recognised by another net, and is it nearer to training images than to others?
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from torch import Tensor

from purpleteam.core.errors import UsageError
from purpleteam.core.registry import Registry, check_ranges, part_of
from purpleteam.data.images import ImageSet

__all__ = ["INVERSIONS", "Inversion", "Kind", "Rebuilt", "part_of"]

Kind = Literal["none", "smooth", "images"]
"""What an adversary knows of images; see `prior`."""


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """Images that were rebuilt from a model.

    Attributes:
        images: uint8, with the classes aimed at as labels.
        queries: questions to the model, for all of them.
    """

    images: ImageSet
    queries: int


@dataclass(frozen=True, kw_only=True)
class Inversion(ABC):
    """A way to rebuild an image of a class; its fields are its options."""

    name: ClassVar[str] = ""
    white_box: ClassVar[bool] = True
    """Whether it needs gradients."""
    ranges: ClassVar[str] = "steps at least 1; smoothness at least 0 and finite"

    prior: Kind = "images"
    """What images look like: `none`, `smooth`, or `images`: those of the adversary's own."""
    steps: int = 200
    """Steps of the optimisation."""
    smoothness: float = 2.0
    """Of `smooth`: how much the mean change between neighbouring pixels counts."""

    def __post_init__(self) -> None:
        check_ranges(self)

    @final
    def rebuild(
        self,
        ask: Callable[[Tensor], Tensor],
        classes: Sequence[int],
        *,
        pool: ImageSet,
        seed: int,
    ) -> Rebuilt:
        """Return an image of each class in `classes`, in which one may stand several times.

        Args:
            ask: images (B, C, H, W) in [0, 1] to scores (B, classes).
            classes: what is aimed at.
            pool: images of the adversary's own, of the size that the model takes.
            seed: of where the search begins.

        Raises:
            UsageError: the model tells less than the attack needs.
        """
        if getattr(ask, "gives", "scores") != "scores":
            raise UsageError(f"{self.name} needs the model's scores, and it gives labels only")
        if self.white_box and not getattr(ask, "differentiable", True):
            others = (name for name, kind in INVERSIONS.items() if not kind.white_box)
            without = f"those that need none: {', '.join(others)}"
            raise UsageError(f"{self.name} needs gradients, and the model gives none; {without}")
        return self.search(ask, classes, pool=pool, seed=seed)

    @abstractmethod
    def search(
        self,
        ask: Callable[[Tensor], Tensor],
        classes: Sequence[int],
        *,
        pool: ImageSet,
        seed: int,
    ) -> Rebuilt:
        """Do what `rebuild` promises, of a model that tells enough."""


INVERSIONS: Registry[type[Inversion]] = Registry("inversion")
INVERSIONS.load(sys.modules[__name__])
