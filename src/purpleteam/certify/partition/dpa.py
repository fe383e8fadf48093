"""Deep Partition Aggregation (Levine and Feizi, ICLR 2021, arXiv:2006.14768) in CPU-seconds.

The training set is cut into parts by a hash of each image's content, every part trains a network
of its own, and the networks vote. The networks have fixed first layers (`features`) and one or two
trained ones (`learners`), so that each is trained in milliseconds. One multiplication serves many
of them, always of the same shape and with each part in the same place, so that a score's bits
depend on its own part and its own image and on nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from purpleteam.certify.partition.certificate import Layout, PartitionCertificate, deal
from purpleteam.certify.partition.features import edge_pairs
from purpleteam.certify.partition.learners import LEARNERS, Group, Learner, Part
from purpleteam.core.errors import DataError, UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import to_batch

STAGES = ("deal", "train", "vote")
TOGETHER = 64  # parts that answer in one multiplication
TILE = 500  # images in one multiplication
FEW = 50  # images whose edges stay in the processor's cache


def certify_partitions(
    train: ImageSet,
    images: ImageSet,
    *,
    classes: int,
    parts: int | None = None,
    capacity: int | None = None,
    learner: Learner | None = None,
    progress: Progress = SILENT,
) -> PartitionCertificate:
    """Train a network on each part of `train` and certify how they vote on `images`.

    Args:
        train: training images, in which an adversary may have had a hand.
        images: images to classify, of the same shape.
        classes: number of labels, at least 2.
        parts: number of parts; chosen for the size of `train` where it is None.
        capacity: images that a part takes; likewise.
        learner: how a part's network is trained; by `readout` where it is None.
        progress: counts parts that are trained, then images that are classified.

    Raises:
        DataError: there are no images, or shapes or labels do not fit.
        UsageError: the parts are too large for the learner, or too many.
    """
    _check(train, images, classes)
    learner = learner or LEARNERS["readout"]()
    clock = [time.process_time()]
    layout = fitting(learner, len(train), parts=parts, capacity=capacity)
    dealt = deal(train, layout)
    clock.append(time.process_time())
    ensemble = train_parts(
        train, dealt, learner, capacity=layout.capacity, classes=classes, progress=progress
    )
    clock.append(time.process_time())
    votes = ensemble.votes(images.images, progress)
    clock.append(time.process_time())
    return PartitionCertificate(
        votes=votes,
        labels=images.labels,
        layout=layout,
        learner=learner,
        empty=sum(1 for part in dealt if not len(part)),
        left_out=len(train) - sum(map(len, dealt)),
        seconds=dict(zip(STAGES, np.diff(clock).tolist(), strict=True)),
    )


def fitting(
    learner: Learner, images: int, *, parts: int | None = None, capacity: int | None = None
) -> Layout:
    """Return the layout for so many training images, or say that its parts are too large."""
    layout = Layout.of(images, parts=parts, capacity=capacity)
    if layout.capacity > learner.largest:
        raise UsageError(
            f"learner {learner.name} learns from at most {learner.largest} images of a part, and "
            f"{layout.parts} parts would have room for {layout.capacity}: name more parts, such as "
            f"{min(images, -(-2 * images // learner.largest))}"
        )
    return layout


def _check(train: ImageSet, images: ImageSet, classes: int) -> None:
    if not len(train) or not len(images):
        raise DataError("a certificate needs at least one training image and one to classify")
    if train.images.shape[1:] != images.images.shape[1:]:
        raise DataError(
            f"images of shape {images.images.shape[1:]} do not fit training images of shape "
            f"{train.images.shape[1:]}"
        )
    highest = int(max(train.labels.max(), images.labels.max()))
    lowest = int(min(train.labels.min(), images.labels.min()))
    if classes < 2 or lowest < 0 or highest >= classes:
        raise DataError(
            f"labels from {lowest} to {highest} do not fit {classes} classes, of which two or more "
            "are needed"
        )


@dataclass(frozen=True)
class PartitionEnsemble:
    """One network for each part."""

    groups: tuple[Group, ...]
    """The networks of TOGETHER parts each, in order."""
    classes: int

    def __len__(self) -> int:
        return sum(len(group.bias) for group in self.groups)

    def network(self, part: int) -> tuple[Tensor, ...]:
        """Return all numbers of one part's network, layer by layer."""
        return self.groups[part // TOGETHER].network(part % TOGETHER)

    def votes(self, images: NDArray[np.uint8], progress: Progress = SILENT) -> NDArray[np.int64]:
        """Return how many networks answer each label, (N, classes), of images (N, H, W, C).

        Of equal scores the smaller label counts; a row sums to the parts that are not empty.
        """
        votes = np.zeros((len(images), self.classes), np.int64)
        with progress.task("ask the parts", len(images)) as task:
            for start in range(0, len(images), TILE):
                some = images[start : start + TILE]
                black = np.zeros((TILE - len(some), *images.shape[1:]), np.uint8)
                tile = np.concatenate([some, black])  # always the same shape
                votes[start : start + TILE] = self._tile(tile)[: len(some)]
                task.advance(len(some))
        return votes

    def _tile(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        few = [images[start : start + FEW] for start in range(0, TILE, FEW)]
        features = torch.cat([edge_pairs(to_batch(some)) for some in few])
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
    """Train a network on each part, given as the indices of its images.

    Every part has room for `capacity` images, however many it holds.
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
