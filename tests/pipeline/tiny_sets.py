"""Sets as small and as lopsided as people bring them, and models that are good for nothing.

An image's first pixel says its class, five grey levels a class, so a net can be always right
(`right_7` for seven classes), always wrong, always the same, or answer with no number at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from purpleteam.data.folders import save_dataset
from purpleteam.data.images import SPLITS, Dataset, ImageSet

KINDS = ("all", "without the last", "two, one after the other", "one", "a rare last")
"""Which classes the images of a split are of."""


def of(kind: str, rng: np.random.Generator, classes: int, count: int) -> NDArray[np.int64]:
    """Return the labels of so many images."""
    some = rng.integers(0, classes, count)
    labels = {
        "all": some,
        "without the last": some % max(1, classes - 1),
        "two, one after the other": np.sort(some % 2),
        "one": np.full(count, some[0]),
        "a rare last": np.where(np.arange(count) == 0, classes - 1, 0),
        "none": some[:0],
    }
    return np.asarray(labels[kind], np.int64)


@dataclass(frozen=True)
class TinySet:
    """What is drawn of a set: its images follow from it."""

    classes: int
    images: int
    kinds: tuple[str, str, str]
    side: int = 8
    channels: int = 1
    blank: bool = False
    """All pixels but the first are black."""

    def made(self) -> Dataset:
        rng = np.random.default_rng(self.images)
        counts = (self.images * 7 // 10, max(1, self.images // 10), max(1, self.images // 5))
        shape = (self.side, self.side, self.channels)
        parts = {}
        for name, kind, count in zip(SPLITS, self.kinds, counts, strict=True):
            labels = of(kind, rng, self.classes, count)
            top = 1 if self.blank else 256
            images = rng.integers(0, top, (len(labels), *shape)).astype(np.uint8)
            images[:, 0, 0] = 5 * labels[:, None]
            parts[name] = ImageSet(images, labels)
        names = tuple(f"class {number}" for number in range(self.classes))
        return Dataset(name="tiny", classes=names, **parts)

    def write(self, folder: Path) -> Path:
        return save_dataset(self.made(), folder)

    @property
    def teaches(self) -> bool:
        return len(set(self.made().train.labels.tolist())) > 1


class Net(nn.Module):
    """Reads the first pixel, and says what it was told to say of it."""

    def __init__(self, kind: str, classes: int) -> None:
        super().__init__()
        self.kind = kind
        self.levels = nn.Parameter(torch.arange(classes) * (5 / 255))

    def forward(self, x: Tensor) -> Tensor:
        scores = -1000 * (x[:, :1, 0, 0] - self.levels).square()  # (N, classes)
        match self.kind:
            case "wrong":
                return scores.roll(1, 1)
            case "same":
                return 0 * scores + torch.eye(scores.shape[1])[0]
            case "nan":
                return scores * torch.nan
        return scores


def __getattr__(name: str) -> Callable[[], Net]:
    kind, _, classes = name.partition("_")
    if not classes.isdigit():
        raise AttributeError(name)
    return lambda: Net(kind, int(classes))
