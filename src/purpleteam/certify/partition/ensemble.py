"""The networks of all parts, side by side: trained and asked many at a time.

One multiplication serves many of them, always of the same shape and with each part in the same
place, so that a score's bits depend on its own part and its own image and on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from purpleteam.certify.partition.edges import edge_pairs
from purpleteam.certify.partition.learners import Group, Learner, Part
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import to_batch

__all__ = ["PartitionEnsemble", "train_parts"]

TOGETHER = 64  # parts that answer in one multiplication
TILE = 500  # images in one multiplication
FEW = 50  # images whose edges stay in the processor's cache


@dataclass(frozen=True)
class PartitionEnsemble:
    """One network for each part.

    Attributes:
        groups: the networks of TOGETHER parts after another.
        classes: number of labels.
    """

    groups: tuple[Group, ...]
    classes: int

    def __len__(self) -> int:
        return sum(len(group.bias) for group in self.groups)

    def network(self, part: int) -> tuple[Tensor, ...]:
        """Return all numbers of one part's network, layer by layer."""
        return self.groups[part // TOGETHER].network(part % TOGETHER)

    def votes(self, images: NDArray[np.uint8], progress: Progress = SILENT) -> NDArray[np.int64]:
        """Return how many networks answer each label; of equal scores the smaller label counts.

        Args:
            images: uint8 (N, H, W, C).
            progress: one step is one image.

        Returns:
            (N, classes); a row sums to the number of parts that are not empty.
        """
        votes = np.zeros((len(images), self.classes), np.int64)
        with progress.task("ask the parts", len(images)) as task:
            for start in range(0, len(images), TILE):
                some = images[start : start + TILE]
                votes[start : start + TILE] = self._tile(_filled(some))[: len(some)]
                task.advance(len(some))
        return votes

    def _tile(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        features = torch.cat([edge_pairs(to_batch(few)) for few in _split(images, FEW)])
        votes = np.zeros(TILE * self.classes, np.int64)
        for group in self.groups:
            scores = group.scores(features).numpy()
            answers = scores.argmax(axis=2)  # (TILE, parts), the first of equal ones
            cells = np.arange(TILE)[:, None] * self.classes + answers[:, group.voting]
            votes += np.bincount(cells.ravel(), minlength=len(votes))
        return votes.reshape(TILE, self.classes)


def train_parts(
    train: ImageSet,
    parts: Sequence[NDArray[np.int64]],
    learner: Learner,
    *,
    capacity: int,
    classes: int,
    progress: Progress = SILENT,
) -> PartitionEnsemble:
    """Train a network on each part.

    Args:
        train: training images.
        parts: for each part the indices of its images, as `deal` returns them.
        learner: how a network is trained.
        capacity: images that every part has room for, however many it holds.
        classes: number of labels.
        progress: one step is one part.
    """
    groups = []
    with progress.task("train the parts", len(parts)) as task:
        for start in range(0, len(parts), TOGETHER):
            some = [
                Part(to_batch(train.images[part]), torch.from_numpy(train.labels[part]))
                for part in parts[start : start + TOGETHER]
            ]
            groups.append(learner.fit(some, first=start, capacity=capacity, classes=classes))
            task.advance(len(some))
    return PartitionEnsemble(tuple(groups), classes)


def _filled(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return TILE images: these, and black ones."""
    black = np.zeros((TILE - len(images), *images.shape[1:]), np.uint8)
    return np.concatenate([images, black])


def _split(images: NDArray[np.uint8], size: int) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(images), size):
        yield images[start : start + size]
