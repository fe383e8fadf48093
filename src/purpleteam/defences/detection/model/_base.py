"""What every model detector is: it sizes the easiest trigger of each class, and judges that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from purpleteam.core.registry import Registry
from purpleteam.defences.detection.model.outliers import Null, small_outliers
from purpleteam.defences.detection.recovered import RecoveredTrigger

__all__ = ["MODEL_DETECTORS", "Evidence", "ModelDetector", "Scanning", "less_natural"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scanning:
    """What a detector works with: a frozen model and the trusted images on its device."""

    model: nn.Module
    images: Tensor
    """Trusted clean images, float32 (N, C, H, W) in [0, 1]."""
    labels: NDArray[np.int64]
    classes: int
    seed: int
    reference: nn.Module | None = None
    """A student of the model that has its nature and not its backdoor, where there is one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What one detector says of a model.

    Attributes:
        detector: its name.
        statistics: (classes,), how far each class stands below the others, in robust deviations.
        standing: how far that is beyond what is usual in clean models, in scales of the null law.
        target_label: the class that stands out most.
        sources: for each label, the classes that a trigger towards it works on; None is all.
        details: what a record keeps beside.
    """

    detector: str
    statistics: NDArray[np.float64]
    standing: float
    target_label: int
    sources: tuple[tuple[int, ...], ...] | None = None
    details: Mapping[str, Any]

    @property
    def source_labels(self) -> tuple[int, ...] | None:
        """The classes that the trigger towards the target works on; None is all."""
        return None if self.sources is None else self.sources[self.target_label]


@dataclass(frozen=True, kw_only=True)
class ModelDetector(ABC):
    """One way of finding the easiest trigger of each class."""

    name: ClassVar[str] = ""
    null: ClassVar[Null]
    """What clean models give, from calibration models that are evaluated nowhere."""
    compares: ClassVar[bool] = False
    """Whether it takes off what a student explains."""

    def __post_init__(self) -> None:
        for part in fields(self):
            if getattr(self, part.name) < 1:
                raise ValueError(f"{part.name} must be at least 1, not {getattr(self, part.name)}")

    @abstractmethod
    def examine(self, work: Scanning) -> Evidence | None:
        """Return what the model's classes look like, or None where this one cannot judge."""

    def recover(
        self, work: Scanning, target: int, sources: tuple[int, ...] | None
    ) -> RecoveredTrigger | None:
        """Return the trigger for one target at leisure, or None where this one has no picture."""
        return None

    def judge(
        self, log_sizes: NDArray[np.float64], found: NDArray[np.float64] | None = None
    ) -> Evidence:
        """Return the evidence of one size per class, on a natural-log scale.

        Args:
            log_sizes: what is compared.
            found: what was found, where the natural part of it was taken off.
        """
        statistics = small_outliers(log_sizes, self.null)
        target = int(statistics.argmax())
        return Evidence(
            detector=self.name,
            statistics=statistics,
            standing=self.null.standing(float(statistics[target])),
            target_label=target,
            details={"sizes": np.exp(log_sizes if found is None else found).tolist()},
        )


def less_natural(
    work: Scanning,
    log_sizes: NDArray[np.float64],
    measure: Callable[[Scanning], NDArray[np.float64]],
    *,
    share: float = 0.6,
) -> NDArray[np.float64]:
    """Return log sizes less the share of the student's nearness that counts as natural.

    A class that is near in the student too is near by nature. One that is far there proves
    nothing: students differ most in what they have not learned, and a class must not look
    suspicious because a student finds it hard.
    """
    if work.reference is None:
        return log_sizes
    natural = measure(replace(work, model=work.reference, reference=None))
    return log_sizes - share * np.minimum(natural - np.median(natural), 0)


MODEL_DETECTORS: Registry[type[ModelDetector]] = Registry("model detector")


def generator(seed: int, stream: int) -> torch.Generator:
    """Return random numbers of their own for each use, a pure function of the seed."""
    return torch.Generator().manual_seed(1_000_003 * seed + stream)
