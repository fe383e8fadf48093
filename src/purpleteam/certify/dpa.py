"""Deep Partition Aggregation (Levine and Feizi, ICLR 2021, arXiv:2006.14768) in CPU-seconds.

The training set is cut into parts by SHA-256 of each image's pixels, every part trains a network of
its own, and the networks vote. An image that is inserted or removed changes one part and at most
one vote; one that is replaced changes two (theorem 1). How many parts there are, and how many
images one takes, must not follow the training set either: numbers that are chosen here are powers
of two, and the certificate ends where another size of the set would have chosen another power.

Each network has fixed first layers (`features`) and one or two trained ones (`learners`). One
multiplication serves many of them, always of the same shape and with each part in the same place,
so that a score's bits depend on its own part and its own image and on nothing else.
"""

from __future__ import annotations

import hashlib
import math
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from purpleteam.certify.features import edge_pairs
from purpleteam.certify.learners import LEARNERS, Layers, Learner
from purpleteam.core.digest import canonical_json, sha256_bytes
from purpleteam.core.errors import DataError, UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.registry import check_ranges
from purpleteam.core.statistics import Rate
from purpleteam.data.images import ImageSet
from purpleteam.data.streamed import Images
from purpleteam.models.devices import to_batch

IMAGES_IN_A_PART = 27  # of MNIST's validation split: fewer make worse models, more fewer votes
ROOM = 1.5  # a part's images are Poisson distributed: a part of 27 all but never holds 64
SMALLEST = 8
TOGETHER = 64  # parts that answer in one multiplication
TILE = 500  # images in one multiplication
MOST_BYTES = 8 << 30  # of the networks of all parts together
FEW = 50  # images whose edges stay in the processor's cache


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a training set is cut into parts."""

    ranges: ClassVar[str] = "parts at least 1; capacity at least 1"

    parts: int
    capacity: int
    """Images that a part takes; those of the highest digests are left out."""
    holds_within: int | None = None
    """Images by which the training set may grow or shrink before `of` would have chosen other
    numbers; None where they were given and so hold for every set."""

    def __post_init__(self) -> None:
        check_ranges(self)

    @classmethod
    def of(cls, images: int, *, parts: int | None = None, capacity: int | None = None) -> Layout:
        """Return the layout for a training set of this many images, at least 1.

        `parts` and `capacity` are given where they were chosen without a look at the training set.
        """
        if parts is not None and not 1 <= parts <= images:
            raise UsageError(f"parts must be from 1 to {images}, the training images, not {parts}")

        def chosen(size: int) -> tuple[int, int]:
            # both only grow or only fall with the size
            cut = parts or min(size, 2 ** max(0, round(math.log2(size / IMAGES_IN_A_PART))))
            room = 2 ** math.ceil(math.log2(max(1.0, ROOM * size / cut)))
            return cut, max(SMALLEST, room) if capacity is None else capacity

        def differs(change: int) -> bool:
            return not chosen(images - change) == chosen(images + change) == (cut, room)

        cut, room = chosen(images)
        given = parts is not None and capacity is not None
        within = None if given else bisect_left(range(1, images), True, key=differs)
        return cls(parts=cut, capacity=room, holds_within=within)


def fitting(
    learner: Learner, images: int, *, parts: int | None = None, capacity: int | None = None
) -> Layout:
    """Return the layout for a number of training images; a UsageError if parts are too large."""
    layout = Layout.of(images, parts=parts, capacity=capacity)
    if layout.capacity > learner.largest:
        raise UsageError(
            f"learner {learner.name} learns from at most {learner.largest} images of a part, and "
            f"{layout.parts} parts would have room for {layout.capacity}: name more parts, such as "
            f"{min(images, -(-2 * images // learner.largest))}"
        )
    return layout


def deal(images: ImageSet, layout: Layout) -> list[NDArray[np.int64]]:
    """Return for each part the indices of its images, in the order of their digests.

    Two entries of the same pixels fall into the same part, the smaller label first, so that a
    part is a function of the images in it alone and not of their places in the set.
    """
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images.images]
    parts: list[list[int]] = [[] for _ in range(layout.parts)]
    for index in sorted(range(len(digests)), key=lambda i: (digests[i], int(images.labels[i]))):
        parts[int.from_bytes(digests[index]) % layout.parts].append(index)
    return [np.array(part[: layout.capacity], np.int64) for part in parts]


@dataclass(frozen=True)
class Ensemble:
    """One network for each part."""

    learner: Learner
    groups: tuple[Layers, ...]
    """The networks of TOGETHER parts each, in order."""
    classes: int

    @classmethod
    def trained(
        cls,
        learner: Learner,
        train: ImageSet,
        parts: Sequence[NDArray[np.int64]],
        *,
        capacity: int,
        classes: int,
        progress: Progress = SILENT,
    ) -> Ensemble:
        """Train a network on each part, given as the indices of its images."""
        groups = []
        with progress.task("train the parts", len(parts)) as task:
            for start in range(0, len(parts), TOGETHER):
                some = [train.take(part) for part in parts[start : start + TOGETHER]]
                groups.append(learner.fit(some, first=start, capacity=capacity, classes=classes))
                each = sum(layer.nbytes for layer in groups[0]) // min(TOGETHER, len(parts))
                if (size := each * len(parts)) > MOST_BYTES:
                    raise UsageError(
                        f"the networks of {len(parts)} parts and {classes} classes take "
                        f"{size / 2**30:.1f} GiB, more than {MOST_BYTES / 2**30:g}: name fewer "
                        f"parts, at most {MOST_BYTES // each}"
                    )
                task.advance(len(some))
        return cls(learner, tuple(groups), classes)

    def network(self, part: int) -> Layers:
        return tuple(layer[part % TOGETHER] for layer in self.groups[part // TOGETHER])

    def votes(self, images: Images, progress: Progress = SILENT) -> NDArray[np.int64]:
        """Return how many networks answer each label, (N, classes), of images (N, H, W, C).

        Of equal scores the smaller label counts; a row sums to the parts that are not empty.
        """
        votes = np.zeros((len(images), self.classes), np.int64)
        with progress.task("ask the parts", len(images)) as task:
            for start in range(0, len(images), TILE):
                some = images[start : start + TILE]
                black = np.zeros((TILE - len(some), *images.shape[1:]), np.uint8)
                few = np.split(np.concatenate([some, black]), TILE // FEW)  # always one shape
                features = torch.cat([edge_pairs(to_batch(part)) for part in few])
                for networks in self.groups:
                    scores = self.learner.scores(networks, features).numpy()[: len(some)]
                    voting = networks[-1].isfinite().any(dim=1).numpy()  # no part without images
                    answers = scores.argmax(axis=2)[:, voting]  # (n, parts), the first of equal
                    for label in range(self.classes):
                        votes[start : start + TILE, label] += (answers == label).sum(axis=1)
                task.advance(len(some))
        return votes


def certified_radii(votes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many votes (N, classes >= 2) may change before the winner can be another, (N,).

    With the winner c and another label c' at v and v' votes, r changed votes leave v - r against
    v' + r at worst, and c keeps a tie only against a larger label: r <= (v - v' - [c' < c]) / 2.
    This is exact: `radius + 1` changed votes can make another label win.
    """
    rows, labels = np.arange(len(votes)), np.arange(votes.shape[1])
    winner = votes.argmax(axis=1)
    gap = votes[rows, winner][:, None] - votes - (labels < winner[:, None])  # (N, classes)
    gap[rows, winner] = np.iinfo(gap.dtype).max
    return np.asarray(gap.min(axis=1) // 2)


@dataclass(frozen=True, kw_only=True, eq=False)
class PartitionCertificate:
    """Votes of the parts' models on images, and how many training images may change.

    The promise: whatever images are inserted into the training set or removed from it, up to
    `radius` of them together, the classifier that is trained on the result answers `answer`.
    An image that is replaced by another counts twice.
    """

    votes: NDArray[np.int64]
    """Models that answer each label, (N, classes)."""
    labels: NDArray[np.int64]
    """True labels, (N,)."""
    layout: Layout
    learner: Learner
    empty: int
    """Parts without an image; they do not vote."""
    left_out: int
    """Training images beyond the capacity of their part."""
    seconds: Mapping[str, float]
    """Processor seconds of each stage, in their order."""

    @cached_property
    def answer(self) -> NDArray[np.int64]:
        """The label that wins the vote, the smallest of several, (N,)."""
        return np.asarray(self.votes.argmax(axis=1))

    @cached_property
    def radius(self) -> NDArray[np.int64]:
        """Insertions and removals together that change no answer, (N,)."""
        radii, within = certified_radii(self.votes), self.layout.holds_within
        return radii if within is None else np.minimum(radii, within)

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        return np.asarray(self.answer == self.labels)

    @property
    def clean_accuracy(self) -> Rate:
        """Fraction right when the training set is as it is."""
        return Rate.of(int(self.correct.sum()), len(self.labels))

    def certified_accuracy(self, changes: int) -> Rate:
        """Return the fraction right whatever `changes` training images come or go."""
        return Rate.of(self.counts(changes)["verified"], len(self.labels))

    def counts(self, changes: int) -> dict[str, int]:
        """Return how many images are verified, falsified (wrong as it is) and unknown."""
        if changes < 0:
            raise UsageError(f"changes must be at least 0, not {changes}")
        verified = int((self.correct & (self.radius >= changes)).sum())
        unknown = len(self.labels) - self.wrong - verified
        return {"verified": verified, "falsified": self.wrong, "unknown": unknown}

    @property
    def wrong(self) -> int:
        """How many of the falsified are wrong as they are, without a change: all."""
        return int((~self.correct).sum())

    @property
    def part_accuracy(self) -> float:
        """Mean accuracy of one part's model; an empty part is always wrong."""
        right = self.votes[np.arange(len(self.labels)), self.labels]
        return float(right.mean()) / self.layout.parts

    @property
    def median_radius(self) -> int:
        """Largest number of changes at which half of all images are still certified."""
        radii = np.sort(np.where(self.correct, self.radius, -1))[::-1]
        return max(0, int(radii[(len(radii) - 1) // 2]))

    @property
    def digest(self) -> str:
        """SHA-256 over layout, learner, votes and labels: the same for the same work."""
        how = canonical_json({"layout": asdict(self.layout), "learner": self.learner.describe()})
        arrays = (np.asarray(self.votes.shape), self.votes, self.labels)
        return sha256_bytes(how.encode(), *(array.astype("<i8").tobytes() for array in arrays))

    def to_json(self, changes: Sequence[int] = (10, 50, 100, 500)) -> dict[str, Any]:
        """Return the fields of `purple certify --method dpa --json`; the largest change leads."""
        if not changes:
            raise UsageError("changes must name at least one number, such as 10,50,100,500")
        most = max(changes)
        return {
            "method": "dpa",
            "epsilon": most,
            "norm": "insertions_and_removals",  # it counts training images, not pixels
            "certified_accuracy": self.certified_accuracy(most).to_json(),
            "clean_accuracy": self.clean_accuracy.to_json(),
            "counts": self.counts(most),
            "wrong": self.wrong,
            "stages": [
                {"changes": count, "certified_accuracy": self.certified_accuracy(count).to_json()}
                | self.counts(count)
                for count in sorted(set(changes))
            ],
            "median_radius": self.median_radius,
            "part_accuracy": self.part_accuracy,
            "layout": asdict(self.layout),
            "learner": self.learner.describe(),
            "empty_parts": self.empty,
            "left_out": self.left_out,
            "seconds": sum(self.seconds.values()),
            "seconds_by_stage": dict(self.seconds),
            "digest": self.digest,
        }


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
        learner: how a part's network is trained; `readout` where it is None.
        progress: counts parts that are trained, then images that are classified.

    Raises:
        DataError: there are no images, or shapes or labels do not fit.
        UsageError: the parts are too large for the learner, or too many, or would take too much
            memory.
    """
    if not len(train) or not len(images):
        raise DataError("a certificate needs at least one training image and one to classify")
    shape, shape_learned = images.images.shape[1:], train.images.shape[1:]
    if shape != shape_learned:
        raise DataError(f"images of shape {shape} do not fit training images of {shape_learned}")
    labels = np.concatenate([train.labels, images.labels])
    if classes < 2 or labels.max() >= classes:
        raise DataError(
            f"labels from {labels.min()} to {labels.max()} do not fit {classes} classes, of which "
            "two or more are needed"
        )
    learner = learner or LEARNERS["readout"]()
    clock = [time.process_time()]
    layout = fitting(learner, len(train), parts=parts, capacity=capacity)
    dealt = deal(train, layout)
    clock.append(time.process_time())
    ensemble = Ensemble.trained(
        learner, train, dealt, capacity=layout.capacity, classes=classes, progress=progress
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
        seconds=dict(zip(("deal", "train", "vote"), np.diff(clock).tolist(), strict=True)),
    )
