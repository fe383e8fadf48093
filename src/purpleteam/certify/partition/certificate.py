"""What a partitioned classifier proves about each test image: one frozen record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.certify.partition.layout import Layout
from purpleteam.certify.partition.learners import Learner
from purpleteam.certify.partition.votes import certified_radii, winners
from purpleteam.core.digest import canonical_json, sha256_bytes
from purpleteam.core.errors import UsageError
from purpleteam.core.statistics import Rate

__all__ = ["CHANGES", "METHOD", "NORM", "PartitionCertificate"]

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
        return np.equal(self.answer, self.labels)

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
            "stages": [self._stage(one) for one in sorted(set(changes))],
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

    def _stage(self, changes: int) -> dict[str, Any]:
        rate = self.certified_accuracy(changes).to_json()
        return {"changes": changes, "certified_accuracy": rate} | self.counts(changes)
