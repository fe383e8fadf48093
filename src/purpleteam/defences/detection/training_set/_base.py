"""What every detector of a training set is: a frozen description, and a score for each image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.registry import Registry
from purpleteam.defences.detection.training_set._survey import Survey

__all__ = ["TRAINING_SET_DETECTORS", "TrainingSetDetector"]


@dataclass(frozen=True, kw_only=True)
class TrainingSetDetector(ABC):
    """Ranks the images of a training set by how much they look planted."""

    name: ClassVar[str] = ""

    def applies(self, survey: Survey) -> bool:
        """Return whether the survey holds what this detector needs."""
        return True

    @abstractmethod
    def scores(self, survey: Survey) -> NDArray[np.float64]:
        """Return a finite score (N,) for each image; the higher, the more suspicious."""


TRAINING_SET_DETECTORS: Registry[type[TrainingSetDetector]] = Registry("training set detector")
