"""What every model detector is: it sizes the easiest trigger of each class and compares them.

Unlike in Neural Cleanse (Wang et al. 2019) sizes are on a log scale, each class is left out of what
it is compared with, and the deviation is drawn towards the one that clean models have.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.core.arrays import Floats, Ints
from purpleteam.core.registry import Registry, check_ranges
from purpleteam.defences.detection.recovered import RecoveredTrigger

CONSISTENT = 1.4826  # makes the median absolute deviation of normal numbers their deviation
USUAL = 5.0  # the usual deviation counts as this many classes beside the model's own
MUTUAL = 0.7  # share of the opposite pair's nearness that counts as natural
NATURAL = 0.75  # share of a pair's nearness in the reference that counts as natural in the model
REWEIGHTED = 20  # rounds of reweighting
FLAT = 0.02  # log sizes that differ by less count alike: no weight is larger than its inverse


@dataclass(frozen=True, kw_only=True)
class Null:
    """What a detector's statistic is in clean models: a Gumbel law, and a usual deviation."""

    ranges: ClassVar[str] = "scale above 0; deviation above 0"

    location: float
    scale: float
    deviation: float  # usual deviation of log sizes between the classes of a clean model

    def __post_init__(self) -> None:
        check_ranges(self)

    def standing(self, statistic: float) -> float:
        """Return how far a statistic lies beyond the location, in scales: no probability."""
        return (statistic - self.location) / self.scale

    def pooled(self, rest: Floats, n: int) -> float:
        """Return the robust deviation of what `n` numbers leave, drawn towards the usual one."""
        spread = CONSISTENT * float(np.median(np.abs(rest)))
        return math.sqrt((n * spread**2 + USUAL * self.deviation**2) / (n + USUAL))


def small_outliers(log_sizes: Floats, null: Null) -> Floats:
    """Return (k,): how far each size lies below the median of the others, in deviations."""
    statistics = np.empty(len(log_sizes))
    for label, size in enumerate(log_sizes):
        others = np.delete(log_sizes, label)
        middle = float(np.median(others))
        statistics[label] = (middle - size) / null.pooled(others - middle, len(others))
    return statistics


def pair_outliers(log_sizes: Floats, null: Null, natural: Floats | None = None) -> Floats:
    """Return (k, k): how far each pair (source, target) lies below what its classes explain.

    Effects of rows and columns are fitted by least absolute deviations, which one pair cannot bend.
    Natural nearness is mutual (4 and 9), a backdoor is one-way: shares of what the opposite pair
    lies below its classes, and of what the pair does in the reference, with log sizes `natural`,
    are taken off. NaN, for no pair, stays NaN.
    """
    rows, columns = np.nonzero(~np.isnan(log_sizes))
    effects = np.zeros((len(rows), 2 * len(log_sizes)))
    effects[np.arange(len(rows)), rows] = 1
    effects[np.arange(len(rows)), len(log_sizes) + columns] = 1
    rest = _unexplained(log_sizes[rows, columns], effects)
    if natural is not None:
        rest = rest - NATURAL * np.minimum(_unexplained(natural[rows, columns], effects), 0)
    opposite = np.zeros_like(log_sizes)
    opposite[columns, rows] = rest
    rest = rest - MUTUAL * np.minimum(opposite[rows, columns], 0)
    statistics = np.full(log_sizes.shape, np.nan)
    statistics[rows, columns] = -rest / null.pooled(rest, len(log_sizes))
    return statistics


def _unexplained(values: Floats, effects: Floats) -> Floats:
    """Return what least absolute deviations leave, by least squares reweighted (Schlossmacher)."""
    weights = np.ones(len(values))
    rest = values
    for _ in range(REWEIGHTED):
        root = np.sqrt(weights)
        fit = np.linalg.lstsq(root[:, None] * effects, root * values, rcond=None)[0]
        rest = values - effects @ fit
        weights = 1 / np.maximum(np.abs(rest), FLAT)
    return np.asarray(rest)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scanning:
    """What a detector works with: a frozen model and the trusted images on its device."""

    model: nn.Module
    images: Tensor  # trusted clean images, float32 (N, C, H, W) in [0, 1]
    labels: Ints
    classes: int
    seed: int
    reference: nn.Module | None = None  # distilled from it: as near by nature, without backdoor

    def generator(self, stream: int) -> torch.Generator:
        """Return random numbers of their own for each use, a pure function of the seed."""
        return torch.Generator().manual_seed(1_000_003 * self.seed + stream)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What one detector says of a model."""

    detector: str
    statistics: Floats  # (classes,), how far each stands below the others, in robust deviations
    standing: float  # how far that is beyond clean models, in scales of the null law
    target_label: int  # the class that stands out most
    sources: tuple[tuple[int, ...], ...] | None = None  # for each label; None is all classes
    details: Mapping[str, Any] = field(default_factory=dict)  # what a record keeps beside

    @classmethod
    def of(cls, detector: str, statistics: Floats, null: Null, **more: Any) -> Evidence:
        """Return the evidence against the class of the greatest statistic."""
        target = int(statistics.argmax())
        standing = null.standing(float(statistics[target]))
        return cls(
            detector=detector, statistics=statistics, standing=standing, target_label=target, **more
        )

    @property
    def source_labels(self) -> tuple[int, ...] | None:
        return None if self.sources is None else self.sources[self.target_label]


@dataclass(frozen=True, kw_only=True)
class ModelDetector(ABC):
    """One way of finding the easiest trigger of each class; its fields are counts."""

    name: ClassVar[str] = ""
    null: ClassVar[Null]  # from calibration models that are evaluated nowhere
    compares: ClassVar[bool] = False  # whether it takes off what the reference explains
    ranges: ClassVar[str] = "steps at least 1; images at least 1; restarts at least 1"

    def __post_init__(self) -> None:
        check_ranges(self)

    @abstractmethod
    def examine(self, work: Scanning) -> Evidence | None:
        """Return what the model's classes look like, or None where they cannot be compared."""

    def recover(
        self, work: Scanning, target: int, sources: tuple[int, ...] | None
    ) -> RecoveredTrigger | None:
        """Return the trigger for one target, searched for thoroughly; None if it has no picture."""
        return None

    def evidence(self, log_sizes: Floats, recorded: Floats | None = None) -> Evidence:
        """Return the evidence of a log size per class; `recorded` is written instead of them."""
        sizes = np.exp(log_sizes if recorded is None else recorded).tolist()
        statistics = small_outliers(log_sizes, self.null)
        return Evidence.of(self.name, statistics, self.null, details={"sizes": sizes})


MODEL_DETECTORS: Registry[type[ModelDetector]] = Registry("model detector")
