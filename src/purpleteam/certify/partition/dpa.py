"""Deep Partition Aggregation (Levine and Feizi, ICLR 2021, arXiv:2006.14768) in CPU-seconds.

The training set is cut into parts by a hash of each image's content, every part trains a network
of its own, and the networks vote. The networks have fixed first layers (`edges`) and one or two
trained ones (`learners`), so that each is trained in milliseconds.
"""

from __future__ import annotations

import time

import numpy as np

from purpleteam.certify.partition.certificate import PartitionCertificate
from purpleteam.certify.partition.ensemble import train_parts
from purpleteam.certify.partition.layout import Layout, deal
from purpleteam.certify.partition.learners import LEARNERS, Learner
from purpleteam.core.errors import DataError, UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.images import ImageSet

__all__ = ["certify_partitions", "fitting"]

STAGES = ("deal", "train", "vote")
DEFAULT = "readout"


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
        progress: told of parts that are trained, then of images that are classified.

    Returns:
        votes and certified radii, a pure function of the arguments.
    """
    _check(train, images, classes)
    learner = learner or LEARNERS[DEFAULT]()
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
