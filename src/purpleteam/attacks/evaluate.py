"""Robust accuracy: right when clean and under every attack tried, image by image.

An image that one attack of the ladder broke is not attacked again: the per-image worst case.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from purpleteam.attacks.evasion import EvasionAttack, MinimumNormAttack
from purpleteam.attacks.inputs import check_labels
from purpleteam.attacks.outcomes import (
    NOT_BROKEN,
    WRONG_WHEN_CLEAN,
    Arrays,
    AttackRow,
    Breaks,
    RobustEvaluation,
    as_floats,
)
from purpleteam.core.digest import canonical_json, sha256_bytes
from purpleteam.core.errors import UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.statistics import Rate
from purpleteam.data.images import ImageSet, check_is_set
from purpleteam.models.devices import device_of, frozen, to_batch
from purpleteam.models.inference import Classifier, Nets, correct


def evaluate(
    model: Classifier,
    images: ImageSet,
    *attacks: EvasionAttack,
    seed: int = 0,
    batch_size: int = 500,
    fit_on: ImageSet | None = None,
    journal: Journal | None = None,
    progress: Progress = SILENT,
) -> RobustEvaluation:
    """Attack all images with every attack and return what still stands.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits; it is left as it was.
        images: the split, or the part of it that is looked at.
        attacks: the ladder, climbed in order.
        seed: all noise is a pure function of it and of each image's index.
        batch_size: images that are held at once; the verdicts do not depend on it.
        fit_on: other images, for attacks that are fitted before they are made; an attack that only
            starts from other images takes `images` themselves where there are none.
        journal: where finished batches are kept; what it holds is not done again.
        progress: where to report.

    Raises:
        UsageError: there is no attack, they do not share one norm and epsilon, or one has to be
            fitted and there is nothing to fit it on.
    """
    check_is_set(images)
    check_attacks(attacks)
    balls = sorted({f"{attack.norm} {attack.epsilon:g}" for attack in attacks})
    if len(balls) != 1:
        named = ", ".join(balls) or "no attack"
        raise UsageError(f"a ladder of attacks needs one norm and epsilon for all, not {named}")
    if attacks[0].epsilon == float("inf"):
        name = attacks[0].name
        raise UsageError(f"attack {name!r} needs an epsilon: which distance still counts")
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")
    climb = _Climb(model, images, seed, batch_size, journal, progress)
    rows = []
    for attack in attacks:
        others = images if fit_on is None and not attack.one_for_all else fit_on
        fitted = attack if others is None else attack.prepare(model, others, seed=seed)
        members = fitted.members(climb.nets.classes)
        below = [climb.rung(member, "" if member is fitted else attack.name) for member in members]
        whole = _row(attack, seed, below[-1].survived)  # as it was asked for, not what was fitted
        rows.append(whole if members == (fitted,) else replace(whole, members=tuple(below)))
    calls = climb.spent["forward"]
    return RobustEvaluation(
        clean_accuracy=Rate.of(int(climb.clean_correct.sum()), len(images)),
        robust_accuracy=Rate.of(climb.standing, len(images)),
        attacks=tuple(rows),
        rungs=tuple(climb.rungs),
        clean_correct=climb.clean_correct,
        broken_by=climb.broken_by,
        distance=climb.distance,
        queries=climb.queries,
        steps=climb.steps,
        x_adv=climb.x_adv,
        cost={**climb.spent, "queries": calls},
    )


@dataclass
class _Climb:
    """The state of an evaluation as it goes up the ladder."""

    model: Classifier
    images: ImageSet
    seed: int
    batch_size: int
    journal: Journal | None
    progress: Progress

    def __post_init__(self) -> None:
        images = self.images
        self.device = device_of(self.model)
        self.clean_correct = correct(self.model, images)
        self.broken_by = np.where(self.clean_correct, NOT_BROKEN, WRONG_WHEN_CLEAN).astype(np.int8)
        self.x_adv = as_floats(images)  # (N, H, W, C)
        self.distance = np.full(len(images), np.nan)
        self.queries, self.steps = np.zeros((2, len(images)), np.int64)
        self.spent: dict[str, float] = {"forward": 0, "backward": 0, "seconds": 0.0}
        self.rungs: list[str] = []
        with frozen(self.model):
            self.nets = Nets.of(self.model, to_batch(images.images[:16], self.device))
        check_labels(torch.from_numpy(images.labels.copy()), self.nets.classes)

    @property
    def standing(self) -> int:
        return int((self.broken_by == NOT_BROKEN).sum())

    def rung(self, attack: EvasionAttack, ensemble: str) -> AttackRow:
        """Attack what still stands."""
        name = f"{ensemble}/{attack.name}" if ensemble else attack.name
        self.rungs.append(name)
        rows = np.flatnonzero(self.broken_by == NOT_BROKEN)
        label = f"{name} {attack.norm} {attack.epsilon:g}"
        with self.progress.task(label, len(rows)) as task:
            for start in range(0, len(rows), self.batch_size):
                index = rows[start : start + self.batch_size]
                done = self._done(attack, index, f"/{name}" if ensemble else "")
                fell = index[done["broken"]]
                self.x_adv[index] = done["x_adv"]
                self.distance[fell] = done["distance"][done["broken"]]
                self.broken_by[fell] = len(self.rungs) - 1
                self.queries[index] += done["queries"]
                self.steps[index] += done["steps"]
                for kind in self.spent:
                    self.spent[kind] += done[kind].item()
                task.advance(len(index), standing=f"{self.standing}/{len(self.images)}")
        return _row(attack, self.seed, Rate.of(self.standing, len(self.images)))

    def _done(self, attack: EvasionAttack, index: np.ndarray, stream: str) -> Arrays:
        """Return what the attack does to these images: from the journal, or by doing it."""
        place = len(self.rungs) - 1
        if self.journal is not None and (known := self.journal.load(place, index)) is not None:
            return known
        x = to_batch(self.images.images[index], self.device)
        y = torch.from_numpy(self.images.labels[index]).to(self.device)
        numbers = torch.from_numpy(index)
        result = attack.run(self.nets, x, y, seed=self.seed, index=numbers, stream=stream)
        kept = ("broken", "distance", "queries", "steps")
        arrays: Arrays = {name: getattr(result, name).cpu().numpy() for name in kept}
        arrays["x_adv"] = result.x_adv.permute(0, 2, 3, 1).cpu().numpy()
        spent = {**vars(result.cost), "seconds": result.seconds}
        arrays |= {kind: np.asarray(amount) for kind, amount in spent.items()}
        if self.journal is not None:
            self.journal.save(place, index, arrays)
        return arrays


def curve(
    model: Classifier,
    images: ImageSet,
    attacks: Sequence[EvasionAttack],
    epsilons: Sequence[float],
    *,
    seed: int = 0,
    batch_size: int = 500,
    fit_on: ImageSet | None = None,
    journal: Journal | None = None,
    progress: Progress = SILENT,
) -> dict[float, RobustEvaluation]:
    """Evaluate the same ladder at each epsilon, smallest first.

    An attack that looks for the nearest example says all in one pass, at the largest epsilon.
    """

    def at(epsilon: float) -> RobustEvaluation:
        return evaluate(
            model,
            images,
            *(replace(attack, epsilon=epsilon) for attack in attacks),
            seed=seed,
            batch_size=batch_size,
            fit_on=fit_on,
            journal=None if journal is None else journal.part(f"{epsilon:g}"),
            progress=progress,
        )

    radii = sorted(set(epsilons))
    single = attacks[0] if len(attacks) == 1 else None
    if radii and isinstance(single, MinimumNormAttack) and not single.stop_inside:
        widest = at(radii[-1])
        return {radius: widest.within(radius, images) for radius in radii}
    points: dict[float, RobustEvaluation] = {}
    breaks: Breaks | None = None
    for radius in radii:  # what broke an image in a smaller ball lies in this one, too
        points[radius] = at(radius).counting(breaks)
        breaks = points[radius].breaks
    return points


def check_attacks(attacks: Sequence[object]) -> None:
    """Refuse what is no attack, such as its name or its class."""
    for given in attacks:
        if not isinstance(given, EvasionAttack):
            what = f"the class {given.__name__}" if isinstance(given, type) else f"{given!r:.80}"
            raise UsageError(f"an attack is none, but {what}: give PGD(steps=40), FGSM() and so on")


def _row(attack: EvasionAttack, seed: int, survived: Rate) -> AttackRow:
    return AttackRow(
        name=attack.name,
        norm=attack.norm,
        epsilon=attack.epsilon,
        steps=attack.planned_steps,
        restarts=attack.planned_restarts,
        seed=seed,
        survived=survived,
        knowledge=attack.knowledge,
        config=asdict(attack),
    )


class Journal:
    """Finished batches of one evaluation, on disk, so that a killed one goes on where it was.

    A folder holds one file for each batch, written whole or not at all; one that cannot be written
    keeps nothing. Who opens a journal names all that the results depend on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, facts: Mapping[str, Any], root: Path | None = None) -> Journal:
        """Return the journal of the evaluation that `facts` name in full; by default in a cache."""
        base = os.environ.get("XDG_CACHE_HOME")
        cache = Path(base) if base else Path.home() / ".cache"
        key = sha256_bytes(canonical_json(facts).encode()).removeprefix("sha256:")
        return cls((root or cache / "purpleteam" / "evaluations") / key[:24])

    @property
    def batches(self) -> int:
        """Number of finished batches that are kept."""
        return len(list(self.folder.rglob("*.npz")))

    def part(self, name: str) -> Journal:
        """Return the journal of one part of the evaluation."""
        return Journal(self.folder / name)

    def load(self, rung: int, index: NDArray[np.int64]) -> Arrays | None:
        """Return what that attack did to these images, if it has been done."""
        try:
            with self._file(rung, index).open("rb") as file:
                kept = np.load(file, allow_pickle=False)
                return {name: kept[name] for name in kept.files}
        except (OSError, ValueError, zipfile.BadZipFile):
            return None

    def save(self, rung: int, index: NDArray[np.int64], arrays: Arrays) -> None:
        """Keep what an attack did to these images."""
        path = self._file(rung, index)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            partial.replace(path)
        except OSError:  # no room, no right: the evaluation goes on without a journal
            with contextlib.suppress(OSError):
                partial.unlink()

    def remove(self) -> None:
        """Forget the evaluation: it is finished, and its results are elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, rung: int, index: NDArray[np.int64]) -> Path:
        images = hashlib.sha256(np.ascontiguousarray(index, np.int64).tobytes()).hexdigest()
        return self.folder / f"{rung:02d}-{images[:24]}.npz"
