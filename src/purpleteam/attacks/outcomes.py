"""What a ladder of attacks left standing: one verdict per image, and the rate over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.attacks.examples import Floats, as_floats, picked, put_in
from purpleteam.core.records import Measurement, plain
from purpleteam.core.statistics import Rate
from purpleteam.data.images import ImageSet
from purpleteam.data.streamed import Images, Streamed, save_arrays
from purpleteam.models.inference import Classifier, logits

NOT_BROKEN, WRONG_WHEN_CLEAN = -1, -2
Arrays = dict[str, NDArray[Any] | Streamed[Any]]


@dataclass(frozen=True, kw_only=True)
class AttackRow:
    """One attack of the ladder, and how many images still stood after it."""

    name: str
    norm: str
    epsilon: float
    steps: int
    restarts: int
    seed: int
    survived: Rate
    knowledge: str
    config: Mapping[str, Any]
    members: tuple[AttackRow, ...] = ()  # the attacks that it consists of, where it is several

    def to_json(self) -> dict[str, Any]:
        values: dict[str, Any] = plain(vars(self))
        return values if self.members else {k: v for k, v in values.items() if k != "members"}


@dataclass(frozen=True, eq=False)
class AsBytes:
    """Adversarial examples as an image file would hold them."""

    images: Images  # (N, H, W, C), inside the ball
    breaks: NDArray[np.bool_]  # (N,); what broke the model as float32 still does


@dataclass(frozen=True, kw_only=True, eq=False)
class Breaks:
    """Adversarial examples that were made beside a ladder, each image at most once."""

    epsilon: float  # radius of the ball in which they were looked for
    rows: NDArray[np.int64]  # (n,); places of the images in the set
    by: tuple[str, ...]  # (n,); the names of what found them
    x_adv: Floats  # (n, H, W, C)
    distance: NDArray[np.float64]  # (n,), in the norm of the ladder


@dataclass(frozen=True, kw_only=True, eq=False)
class RobustEvaluation:
    """What a ladder of attacks left standing.

    Attributes:
        robust_accuracy: right when clean and under everything that was tried.
        rungs: the attacks in the order they were made; `autoattack/apgd_ce` is a member's, and
            what was found beside the ladder comes last.
        broken_by: (N,) int; place among the rungs of the attack that broke the image, -1 where it
            still stands, -2 where it was wrong when clean.
        distance: (N,) float64; of the adversarial example, NaN where there is none.
        queries: (N,) int64; model calls that the attacks made for each image.
        steps: (N,) int64; those of them that were steps of a search.
        x_adv: (N, H, W, C) float32 adversarial examples; the last candidate where none was found,
            the image itself where it was wrong when clean.
        kept: (n,) int64; the images whose examples `x_adv` holds: all, or of a set that does not
            fit in memory a sample.
    """

    robust_accuracy: Rate
    attacks: tuple[AttackRow, ...]
    rungs: tuple[str, ...]
    broken_by: NDArray[np.int8]
    distance: NDArray[np.float64]
    queries: NDArray[np.int64]
    steps: NDArray[np.int64]
    x_adv: Floats
    kept: NDArray[np.int64]
    cost: Mapping[str, float]

    @property
    def clean_correct(self) -> NDArray[np.bool_]:
        """Which images are right unchanged, (N,)."""
        return np.asarray(self.broken_by != WRONG_WHEN_CLEAN)

    @property
    def clean_accuracy(self) -> Rate:
        """Share of the images that are right unchanged."""
        return _share(self.clean_correct)

    @property
    def robust(self) -> NDArray[np.bool_]:
        """One verdict per image: right when clean and under every attack tried."""
        return np.asarray(self.broken_by == NOT_BROKEN)

    def within(self, epsilon: float, images: ImageSet) -> RobustEvaluation:
        """Return the evaluation of nearest examples in a smaller ball: those beyond are lost."""
        if epsilon == self.attacks[-1].epsilon:
            return self
        lost = (self.broken_by >= 0) & (self.distance > epsilon)
        broken_by = np.where(lost, NOT_BROKEN, self.broken_by).astype(np.int8)
        clean = np.flatnonzero(broken_by < 0)
        last_rungs = np.cumsum([max(len(row.members), 1) for row in self.attacks]) - 1
        left = [(broken_by == NOT_BROKEN) | (broken_by > place) for place in last_rungs]
        return replace(
            self,
            robust_accuracy=_share(broken_by == NOT_BROKEN),
            attacks=tuple(
                replace(row, epsilon=epsilon, survived=_share(stands))
                for row, stands in zip(self.attacks, left, strict=True)
            ),
            broken_by=broken_by,
            distance=np.where(lost, np.nan, self.distance),
            x_adv=put_in(self.x_adv, clean, picked(as_floats(images), clean)),
        )

    @property
    def breaks(self) -> Breaks:
        """What was broken, and by which of the rungs."""
        rows = np.flatnonzero(self.broken_by >= 0)
        return Breaks(
            epsilon=self.attacks[-1].epsilon,
            rows=rows,
            by=tuple(self.rungs[place] for place in self.broken_by[rows]),
            x_adv=picked(self.x_adv, rows),
            distance=self.distance[rows],
        )

    def counting(self, breaks: Breaks | None) -> RobustEvaluation:
        """Return the evaluation with what was found beside the ladder, inside its ball.

        The rows of the ladder stay what each attack achieved; robust accuracy counts every break.
        """
        if breaks is None:
            return self
        epsilon = self.attacks[-1].epsilon
        inside = (breaks.distance <= epsilon) | (breaks.epsilon <= epsilon)
        new = inside & self.robust[breaks.rows]
        if not new.any():
            return self
        names = [name for name, counts in zip(breaks.by, new, strict=True) if counts]
        rungs = (*self.rungs, *sorted(set(names) - set(self.rungs)))
        rows = breaks.rows[new]
        broken_by, distance = self.broken_by.copy(), self.distance.copy()
        broken_by[rows] = [rungs.index(name) for name in names]
        distance[rows] = breaks.distance[new]
        return replace(
            self,
            robust_accuracy=_share(broken_by == NOT_BROKEN),
            rungs=rungs,
            broken_by=broken_by,
            x_adv=put_in(self.x_adv, rows, picked(breaks.x_adv, np.flatnonzero(new))),
            distance=distance,
        )

    def save_outcomes(self, path: Path) -> None:
        """Write one row per image as .npz, without pickles and byte for byte reproducible."""
        self._save(path, index=np.arange(len(self.broken_by)), clean_correct=self.clean_correct)

    def save_images(self, path: Path, images: ImageSet, as_bytes: AsBytes | None = None) -> None:
        """Write the float32 images, what was added, and each one's outcome as .npz, lossless."""
        beside = {} if as_bytes is None else vars(as_bytes)
        last = {f"bytes_{name}": array for name, array in beside.items()}
        clean, added = as_floats(images), self.x_adv
        if isinstance(added, Streamed):
            added = _beside(added, clean, np.subtract, np.float32)
        else:
            added = added - clean[:]
        self._save(path, last, x_adv=self.x_adv, perturbation=added)

    def _save(self, path: Path, last: Arrays | None = None, **first: Any) -> None:
        rows: Arrays = {"broken_by": self.broken_by, "rungs": np.array(self.rungs)}
        rows |= {name: getattr(self, name) for name in ("distance", "queries", "steps")}
        save_arrays(path, {**first, **rows, **(last or {})})

    def as_bytes(self, model: Classifier, images: ImageSet) -> AsBytes:
        """Return the images rounded to bytes, towards the clean ones, and ask the model again."""
        x_adv, pixels = self.x_adv, images.images
        if isinstance(x_adv, Streamed) or isinstance(pixels, Streamed):
            rounded: Images = _beside(Streamed.of(x_adv), pixels, _towards, np.uint8)
        else:
            rounded = _towards(x_adv, pixels)
        wrong = logits(model, rounded).argmax(1) != images.labels
        return AsBytes(rounded, wrong & (self.broken_by >= 0))

    def measurement(
        self, subject: Mapping[str, Any], *, seed: int, detail: Mapping[str, Any], **how: Any
    ) -> Measurement:
        """Return the robust accuracy as a record, named with attack, norm and epsilon."""
        last = self.attacks[-1]
        facts = {
            "attack": "+".join(row.name for row in self.attacks),
            "norm": last.norm,
            "epsilon": last.epsilon,
            "steps": last.steps,
            "restarts": last.restarts,
            "step_size": last.config.get("step_size"),
            "knowledge": last.knowledge,
        }
        return Measurement(
            name="robust_accuracy",
            value=self.robust_accuracy,
            subject=subject,
            how=facts | how,
            detail={"attacks": [row.to_json() for row in self.attacks]} | dict(detail),
            seed=seed,
            cost=self.cost,
        )


def _towards(x_adv: NDArray[np.float32], pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images as bytes, rounded towards others."""
    start = pixels.astype(np.float64)
    change = x_adv.astype(np.float64) * 255 - start
    moved = start + np.sign(change) * np.floor(np.abs(change) + 1e-3)  # float32 falls short
    return np.asarray(moved.clip(0, 255), np.uint8)


def _beside(first: Streamed[Any], other: Any, function: Any, dtype: Any) -> Streamed[Any]:
    """Return what a function makes of the same rows of two arrays, as they are read."""
    return Streamed(lambda rows: function(first[rows], other[rows]), first.shape, dtype)


def _share(hits: NDArray[np.bool_]) -> Rate:
    return Rate.of(int(hits.sum()), len(hits))
