"""What every poison attack is: a frozen description, and a function of a training set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from purpleteam.attacks.poison.trigger import Trigger
from purpleteam.core.errors import UsageError
from purpleteam.core.registry import Registry
from purpleteam.data.images import ImageSet

__all__ = ["POISONS", "PoisonAttack", "PoisonedSet"]


@dataclass(frozen=True, eq=False)
class PoisonedSet:
    """A training set with a few images changed.

    Attributes:
        images: the whole training set, in the order of the clean one.
        indices: places of the changed images, growing.
        manifest: all that is needed to make it again: trigger, target, seed, parent digest.
    """

    images: ImageSet
    indices: NDArray[np.int64]
    manifest: Mapping[str, Any]

    @property
    def rate(self) -> float:
        """Share of the training images that was changed."""
        return len(self.indices) / len(self.images)


@dataclass(frozen=True, kw_only=True)
class PoisonAttack:
    """Stamps a trigger on a number of training images, with or without a new label."""

    name: ClassVar[str] = ""

    trigger: Trigger = field(default_factory=Trigger)
    """The pattern that opens the backdoor."""
    count: int = 100
    """How many training images are changed."""
    target_label: int = 7
    """The label that the adversary wants for triggered images."""
    sources: Literal["other", "target"] = "other"
    """Which images are stamped: those of other classes, or those of the target itself."""
    relabel: bool = True
    """Give the stamped images the target's label; otherwise they keep their own."""
    selection: Literal["random", "first"] = "random"
    """Which of the candidates are taken: a seeded draw, or the first in file order."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be at least 1, not {self.count}")
        if self.target_label < 0:
            raise ValueError(f"target_label must be at least 0, not {self.target_label}")

    def apply(self, clean: ImageSet, *, seed: int) -> PoisonedSet:
        """Return the poisoned training set, a pure function of the clean one and the seed.

        Raises:
            UsageError: the target is no label of the set, or there are too few candidates.
        """
        known = sorted(set(clean.labels.tolist()))
        if self.target_label not in known:
            raise UsageError(f"target_label {self.target_label} is no label; known: {known}")
        of_target = clean.labels == self.target_label
        candidates = np.flatnonzero(of_target if self.sources == "target" else ~of_target)
        if len(candidates) < self.count:
            raise UsageError(
                f"count {self.count} is more than the {len(candidates)} images to choose from"
            )
        indices = self._choose(candidates, seed)
        images, labels = clean.images.copy(), clean.labels.copy()
        try:
            images[indices] = self.trigger.stamp(images[indices])
        except ValueError as error:
            raise UsageError(str(error)) from None
        if self.relabel:
            labels[indices] = self.target_label
        poisoned = ImageSet(images, labels)
        return PoisonedSet(poisoned, indices, self._manifest(clean, poisoned, indices, seed))

    def describe(self, channels: int) -> dict[str, Any]:
        """Return what a record states about the attack."""
        return {
            "poison": self.name,
            "trigger": self.trigger.describe(channels),
            "poisoned": self.count,
            "target_label": self.target_label,
            "sources": self.sources,
            "relabel": self.relabel,
            "selection": self.selection,
        }

    def _choose(self, candidates: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
        if self.selection == "first":
            return candidates[: self.count]
        rng = np.random.default_rng(seed)
        return np.sort(rng.choice(candidates, self.count, replace=False))

    def _manifest(
        self, clean: ImageSet, poisoned: ImageSet, indices: NDArray[np.int64], seed: int
    ) -> dict[str, Any]:
        return self.describe(clean.images.shape[3]) | {
            "seed": seed,
            "indices": indices.tolist(),
            "original_labels": clean.labels[indices].tolist(),
            "rate": len(indices) / len(clean),
            "parent_digest": clean.digest,
            "digest": poisoned.digest,
        }


POISONS: Registry[type[PoisonAttack]] = Registry("poison attack")
