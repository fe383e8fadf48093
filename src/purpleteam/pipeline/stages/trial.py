"""One trial of the poison lab: a training set, the model that learned it, and what was planted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from purpleteam.attacks.poison import PoisonAttack, PoisonedSet
from purpleteam.data.images import ImageSet
from purpleteam.models.loading import LoadedModel
from purpleteam.pipeline.work import Work

__all__ = ["CLEAN", "Trial", "trusted_images"]

CLEAN = "backdoors-clean"
"""What the model of the lab that learned the clean images is called in records."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A model of the lab. Without a poison it is the clean one of its seed."""

    name: str
    seed: int
    images: ImageSet
    """What it learned from."""
    model: LoadedModel
    poison: PoisonAttack | None = None
    poisoned: PoisonedSet | None = None
    twin: LoadedModel | None = None
    """The clean model of the same seed."""
    own: bool = False
    """No trial at all: what the run itself trains on or serves, of which nothing is known."""

    @property
    def stem(self) -> str:
        """What its files are called."""
        return f"{self.name}-{self.seed}"

    def subject(self, work: Work) -> dict[str, Any]:
        """Return what a number about the model on test images is about."""
        return work.subject(self.model, self.name) | {"training_set": self.images.digest}

    def about_training_set(self, work: Work) -> dict[str, Any]:
        """Return what a number about the training images is about."""
        return {
            "model": self.model.digest,
            "model_name": self.name,
            "dataset": self.images.digest,
            "dataset_name": work.dataset.name,
            "split": "train",
            "selection": "all",
        }

    def planted(self) -> dict[str, Any]:
        """Return what the trial's records say of the poison, which the detectors are not told."""
        if self.poison is None or self.poisoned is None:
            return {"poison": "unknown" if self.own else "none"}
        return {
            "poison": self.poison.name,
            "poisoned": len(self.poisoned.indices),
            "target_label": self.poison.target_label,
        }


def trusted_images(work: Work) -> ImageSet:
    """Return the validation images that are known to be clean."""
    return work.dataset.validation.first(work.config.backdoors.trusted)
