"""A training set dealt to parts, what the parts' votes prove, and the record of it.

Deep Partition Aggregation (Levine and Feizi, ICLR 2021, arXiv:2006.14768): each part's model has
one vote. The parts and their order come from SHA-256 of the pixels, so an image that is inserted
or removed changes one part and at most one vote; one that is replaced changes two (theorem 1). How
many parts there are, and how many images one takes, must not follow the training set either:
numbers that are chosen here are powers of two, and the certificate ends where another size of the
training set would have chosen another power.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.certify.partition.learners import Learner
from purpleteam.core.digest import canonical_json, sha256_bytes
from purpleteam.core.errors import UsageError
from purpleteam.core.statistics import Rate
from purpleteam.data.images import ImageSet

IMAGES_IN_A_PART = 27
"""Chosen on MNIST's validation split: fewer images make worse models, more images fewer votes."""
ROOM = 1.5  # a part's images are Poisson distributed: a part of 27 all but never holds 64
SMALLEST = 8


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a training set is cut into parts.

    Attributes:
        parts: number of disjoint parts.
        capacity: images that a part takes; those of the highest digests are left out.
        holds_within: images by which the training set may grow or shrink before `of` would have
            chosen other numbers; None where they were given and so hold for every set.
    """

    parts: int
    capacity: int
    holds_within: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("parts", self.parts), ("capacity", self.capacity)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")

    @classmethod
    def of(cls, images: int, *, parts: int | None = None, capacity: int | None = None) -> Layout:
        """Return the layout for a training set of so many images, at least 1.

        `parts` and `capacity` are given where they were chosen without a look at the training set.
        """
        if parts is not None and not 1 <= parts <= images:
            raise UsageError(f"parts must be from 1 to {images}, the training images, not {parts}")
        chosen = _chosen(images, parts, capacity)
        if parts is not None and capacity is not None:
            return cls(parts=chosen[0], capacity=chosen[1])
        low, high = 0, images - 1
        while low < high:  # the largest change of size that leaves the choice as it is
            middle = (low + high + 1) // 2
            sizes = (images - middle, images + middle)
            if all(_chosen(size, parts, capacity) == chosen for size in sizes):
                low = middle
            else:
                high = middle - 1
        return cls(parts=chosen[0], capacity=chosen[1], holds_within=low)


def deal(images: ImageSet, layout: Layout) -> list[NDArray[np.int64]]:
    """Return for each part the indices of its images, in the order of their digests.

    Two entries of the same pixels fall into the same part, the smaller label first, so that a
    part is a function of the images in it alone and not of their places in the set.
    """
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images.images]
    order = sorted(range(len(digests)), key=lambda i: (digests[i], int(images.labels[i])))
    parts: list[list[int]] = [[] for _ in range(layout.parts)]
    for index in order:
        parts[int.from_bytes(digests[index]) % layout.parts].append(index)
    return [np.array(part[: layout.capacity], np.int64) for part in parts]


def _chosen(images: int, parts: int | None, capacity: int | None) -> tuple[int, int]:
    """Return parts and capacity; both only grow or only fall with the number of images."""
    if parts is None:
        parts = min(images, 2 ** max(0, round(math.log2(images / IMAGES_IN_A_PART))))
    if capacity is None:
        capacity = max(SMALLEST, 2 ** math.ceil(math.log2(max(1.0, ROOM * images / parts))))
    return parts, capacity


def winners(votes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the label with the most votes (N, classes), the smallest of several."""
    return np.asarray(votes.argmax(axis=1))


def certified_radii(votes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many votes (N, classes >= 2) may change before the winner can be another, (N,).

    With the winner c and another label c' at v and v' votes, r changed votes leave v - r against
    v' + r at worst, and c keeps a tie only against a larger label: r <= (v - v' - [c' < c]) / 2.
    This is exact: `radius + 1` changed votes can make another label win.
    """
    rows, labels = np.arange(len(votes)), np.arange(votes.shape[1])
    winner = winners(votes)
    gap = votes[rows, winner][:, None] - votes - (labels < winner[:, None])  # (N, classes)
    gap[rows, winner] = np.iinfo(gap.dtype).max
    return np.asarray(gap.min(axis=1) // 2)


METHOD = "dpa"
NORM = "insertions_and_removals"
"""A certificate against changes of the training set counts images, not pixels."""
CHANGES = (10, 50, 100, 500)


@dataclass(frozen=True, kw_only=True, eq=False)
class PartitionCertificate:
    """Votes of the parts' models on images, and how many training images may change.

    The promise: whatever images are inserted into the training set or removed from it, up to
    `radius` of them together, the classifier that is trained on the result answers `answer`.
    An image that is replaced by another counts twice.

    Attributes:
        votes: models that answer each label, int64 (N, classes).
        labels: true labels, int64 (N,).
        layout: parts and capacity.
        learner: how each part's network is trained.
        empty: parts without an image; they do not vote.
        left_out: training images beyond the capacity of their part.
        seconds: processor seconds of each stage, in their order.
    """

    votes: NDArray[np.int64]
    labels: NDArray[np.int64]
    layout: Layout
    learner: Learner
    empty: int
    left_out: int
    seconds: Mapping[str, float]

    @cached_property
    def answer(self) -> NDArray[np.int64]:
        """The label that wins the vote, (N,)."""
        return winners(self.votes)

    @cached_property
    def radius(self) -> NDArray[np.int64]:
        """Insertions and removals together that change no answer, (N,)."""
        radii = certified_radii(self.votes)
        within = self.layout.holds_within
        return radii if within is None else np.minimum(radii, within)

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the answer is the true label, (N,)."""
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
        right = int(self.correct.sum())
        return {
            "verified": verified,
            "falsified": len(self.labels) - right,
            "unknown": right - verified,
        }

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
        return sha256_bytes(
            how.encode(),
            np.asarray(self.votes.shape, "<i8").tobytes(),
            np.ascontiguousarray(self.votes, "<i8").tobytes(),
            np.ascontiguousarray(self.labels, "<i8").tobytes(),
        )

    def to_json(self, changes: Sequence[int] = CHANGES) -> dict[str, Any]:
        """Return the fields of `purple certify --method dpa --json`; the largest change leads."""
        if not changes:
            raise UsageError("changes must name at least one number, such as 10,50,100,500")
        most = max(changes)
        return {
            "method": METHOD,
            "epsilon": most,
            "norm": NORM,
            "certified_accuracy": self.certified_accuracy(most).to_json(),
            "clean_accuracy": self.clean_accuracy.to_json(),
            "counts": self.counts(most),
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
