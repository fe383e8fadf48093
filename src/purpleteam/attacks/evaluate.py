"""Robust accuracy: right when clean and under every attack tried, image by image."""

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
from purpleteam.attacks.examples import KEPT, Examples
from purpleteam.attacks.inputs import check_labels
from purpleteam.attacks.outcomes import NOT_BROKEN, WRONG_WHEN_CLEAN, AttackRow, RobustEvaluation
from purpleteam.core.digest import canonical_json, sha256_bytes
from purpleteam.core.errors import UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.statistics import Rate
from purpleteam.data.images import ImageSet, check_is_set
from purpleteam.models.devices import device_of, frozen, to_batch
from purpleteam.models.inference import Classifier, Nets, correct

Arrays = dict[str, NDArray[Any]]


def evaluate(
    model: Classifier,
    images: ImageSet,
    *attacks: EvasionAttack,
    seed: int = 0,
    batch_size: int = 500,
    fit_on: ImageSet | None = None,
    kept: int = KEPT,
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
        fit_on: other images, for attacks that are fitted before they are made; one that only starts
            from other images takes `images` where there are none.
        kept: of a set that does not fit in memory, how many adversarial examples are kept, evenly
            spread; more than a few lie in a temporary file. Of others all are kept.
        journal: where finished batches are kept; what it holds is not done again.
        progress: where to report.

    Raises:
        UsageError: there is no attack, they do not share one norm and epsilon, or there is nothing
            to fit one on.
    """
    check_is_set(images)
    check_attacks(attacks)
    balls = sorted({f"{attack.norm} {attack.epsilon:g}" for attack in attacks})
    if len(balls) != 1:
        named = ", ".join(balls) or "no attack"
        raise UsageError(f"a ladder of attacks needs one norm and epsilon for all, not {named}")
    if attacks[0].epsilon == float("inf"):
        raise UsageError(f"attack {attacks[0].name!r} needs an epsilon: which distance counts")
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")
    device = device_of(model)
    cost: dict[str, float] = {"forward": 0, "backward": 0, "seconds": 0.0}
    clean = correct(model, images)
    broken_by = np.where(clean, NOT_BROKEN, WRONG_WHEN_CLEAN).astype(np.int8)
    examples = Examples(images, kept)
    distance = np.full(len(images), np.nan)
    queries, steps = np.zeros((2, len(images)), np.int64)
    with frozen(model):
        nets = Nets.of(model, to_batch(images.images[:16], device))
    check_labels(torch.from_numpy(images.labels.copy()), nets.classes)
    rungs, rows = list[str](), list[AttackRow]()

    def attacked(attack: EvasionAttack, index: NDArray[np.int64], stream: str) -> Arrays:
        """Return what the attack does to these images: from the journal, or by doing it."""
        place = len(rungs) - 1
        if journal is not None and (known := journal.load(place, index)) is not None:
            return known
        x = to_batch(images.images[index], device)
        y = torch.from_numpy(images.labels[index]).to(device)
        result = attack.run(nets, x, y, seed=seed, index=torch.from_numpy(index), stream=stream)
        told = ("broken", "distance", "queries", "steps")
        arrays: Arrays = {name: getattr(result, name).cpu().numpy() for name in told}
        some = torch.from_numpy(examples.keeps(index)).to(device)
        arrays["x_adv"] = result.x_adv[some].permute(0, 2, 3, 1).cpu().numpy()
        spent = {**vars(result.cost), "seconds": result.seconds}
        arrays |= {kind: np.asarray(amount) for kind, amount in spent.items()}
        if journal is not None:
            journal.save(place, index, arrays)
        return arrays

    def survived() -> Rate:
        return Rate.of(int((broken_by == NOT_BROKEN).sum()), len(images))

    def climbed(attack: EvasionAttack, ensemble: str) -> AttackRow:
        """Attack what still stands."""
        name = f"{ensemble}/{attack.name}" if ensemble else attack.name
        rungs.append(name)
        left = np.flatnonzero(broken_by == NOT_BROKEN)
        with progress.task(f"{name} {attack.norm} {attack.epsilon:g}", len(left)) as task:
            for start in range(0, len(left), batch_size):
                index = left[start : start + batch_size]
                done = attacked(attack, index, f"/{name}" if ensemble else "")
                fell = index[done["broken"]]
                examples.put(index[examples.keeps(index)], done["x_adv"])
                distance[fell] = done["distance"][done["broken"]]
                broken_by[fell] = len(rungs) - 1
                queries[index] += done["queries"]
                steps[index] += done["steps"]
                for kind in cost:
                    cost[kind] += done[kind].item()
                standing = int((broken_by == NOT_BROKEN).sum())
                task.advance(len(index), standing=f"{standing}/{len(images)}")
        return _row(attack, seed, survived())

    for attack in attacks:
        others = images if fit_on is None and not attack.one_for_all else fit_on
        fitted = attack if others is None else attack.prepare(model, others, seed=seed)
        members = fitted.rungs(nets)
        below = [climbed(member, "" if member is fitted else attack.name) for member in members]
        row = _row(attack, seed, below[-1].survived)  # as it was asked for, not what was fitted
        rows.append(row if members == (fitted,) else replace(row, members=tuple(below)))
    return RobustEvaluation(
        robust_accuracy=survived(),
        attacks=tuple(rows),
        rungs=tuple(rungs),
        broken_by=broken_by,
        distance=distance,
        queries=queries,
        steps=steps,
        x_adv=examples.array,
        kept=examples.rows,
        cost=cost | {"queries": cost["forward"]},
    )


def curve(
    model: Classifier,
    images: ImageSet,
    attacks: Sequence[EvasionAttack],
    epsilons: Sequence[float],
    *,
    seed: int = 0,
    batch_size: int = 500,
    fit_on: ImageSet | None = None,
    kept: int = KEPT,
    journal: Journal | None = None,
    progress: Progress = SILENT,
) -> dict[float, RobustEvaluation]:
    """Evaluate the same ladder at each epsilon, smallest first."""

    def at(epsilon: float) -> RobustEvaluation:
        return evaluate(
            model,
            images,
            *(replace(attack, epsilon=epsilon) for attack in attacks),
            seed=seed,
            batch_size=batch_size,
            fit_on=fit_on,
            kept=kept,
            journal=None if journal is None else journal.part(f"{epsilon:g}"),
            progress=progress,
        )

    radii = sorted(set(epsilons))
    single = attacks[0] if len(attacks) == 1 else None
    # an attack that looks for the nearest example says all in one pass, at the largest epsilon
    if radii and isinstance(single, MinimumNormAttack) and not single.stop_inside:
        widest = at(radii[-1])
        return {radius: widest.within(radius, images) for radius in radii}
    points: dict[float, RobustEvaluation] = {}
    breaks = None
    for radius in radii:  # what broke an image in a smaller ball lies in this one, too
        points[radius] = at(radius).counting(breaks)
        breaks = points[radius].breaks
    return points


def check_attacks(attacks: Sequence[object]) -> None:
    """Refuse what is no attack, such as its name or its class."""
    for given in attacks:
        if not isinstance(given, EvasionAttack):
            kind = f"the class {given.__name__}" if isinstance(given, type) else f"{given!r:.80}"
            raise UsageError(f"an attack is none, but {kind}: give PGD(steps=40), FGSM() and so on")


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


@dataclass(frozen=True)
class Journal:
    """Finished batches of an evaluation, a file each: a killed one goes on where it was."""

    folder: Path

    @classmethod
    def of(cls, facts: Mapping[str, Any], root: Path | None = None) -> Journal:
        """Return the journal of the evaluation that `facts` name in full; by default in a cache."""
        base = os.environ.get("XDG_CACHE_HOME")
        cache = Path(base) if base else Path.home() / ".cache"
        key = sha256_bytes(canonical_json(facts).encode()).removeprefix("sha256:")
        return cls((root or cache / "purpleteam" / "evaluations") / key[:24])

    @property
    def batches(self) -> int:
        return len(list(self.folder.rglob("*.npz")))

    def part(self, name: str) -> Journal:
        return Journal(self.folder / name)

    def load(self, rung: int, index: NDArray[np.int64]) -> Arrays | None:
        try:
            with self._file(rung, index).open("rb") as file:
                kept = np.load(file, allow_pickle=False)
                return {name: kept[name] for name in kept.files}
        except (OSError, ValueError, zipfile.BadZipFile):
            return None

    def save(self, rung: int, index: NDArray[np.int64], arrays: Arrays) -> None:
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
        """Forget the evaluation, once it is finished and its results are elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, rung: int, index: NDArray[np.int64]) -> Path:
        images = hashlib.sha256(np.ascontiguousarray(index, np.int64).tobytes()).hexdigest()
        return self.folder / f"{rung:02d}-{images[:24]}.npz"
