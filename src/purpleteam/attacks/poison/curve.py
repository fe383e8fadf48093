"""The poison curve: attack success over the number of poisons, with intervals over repetitions.

Each point is a training of its own for every seed, which draws the poisons, the starting weights
and the order of the images. The count 0 is always among them: that is the base rate. Each
finished training is written to a journal, so that a stopped curve goes on where it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from purpleteam.attacks.poison._base import PoisonAttack
from purpleteam.attacks.poison.evaluate import evaluate_backdoor, evaluate_victim
from purpleteam.core.digest import canonical_json, sha256_bytes
from purpleteam.core.errors import UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.statistics import Estimate, mean_over_seeds
from purpleteam.data.images import Dataset
from purpleteam.models.loading import build
from purpleteam.models.recipes import Recipe
from purpleteam.models.training import train

MEASURED = ("attack_success_rate", "clean_accuracy")


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """What so many poisons achieve, over the repetitions."""

    count: int
    attack_success_rate: Estimate
    clean_accuracy: Estimate

    def to_json(self) -> dict[str, Any]:
        """Return the fields of one entry of `purple poison --curve --json`."""
        rates = {name: getattr(self, name).to_json() for name in MEASURED}
        return {"count": self.count} | rates


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Points of growing count, the first of which is 0: the base rate."""

    points: tuple[CurvePoint, ...]
    seeds: tuple[int, ...]

    def count_for(self, success: float) -> int | None:
        """Return the least count that was tried whose mean success is at least `success`."""
        enough = (p.count for p in self.points if p.attack_success_rate.value >= success)
        return next(enough, None)

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `purple poison --curve --json`."""
        return {
            "seeds": list(self.seeds),
            "curve": [point.to_json() for point in self.points],
            "count_for": {f"{level:g}": self.count_for(level) for level in (0.5, 0.9, 0.99)},
        }


def poison_curve(
    poison: PoisonAttack,
    dataset: Dataset,
    *,
    counts: Sequence[int],
    seeds: Sequence[int],
    architecture: str,
    recipe: Recipe,
    split: str = "test",
    journal: Path | None = None,
    device: torch.device | None = None,
    progress: Progress = SILENT,
) -> Curve:
    """Train on poisoned sets of each count and seed, and measure each model.

    The train split is poisoned, the validation split chooses the epoch; success and clean accuracy
    are measured on `split`. The counts are at least 1 each, and 0 is added; the seeds at least two,
    for an interval. Finished trainings are kept in the folder `journal` and found again.

    Raises:
        UsageError: fewer than two seeds, or a count below 1 or above the candidates.
    """
    if len(set(seeds)) < 2:
        raise UsageError(f"a curve needs at least 2 seeds for its intervals, not {len(set(seeds))}")
    if not counts or min(counts) < 1:
        raise UsageError(f"the counts of a curve are at least 1, not {list(counts)}")
    planned = [0, *sorted(set(counts))]
    largest = replace(poison, count=planned[-1], rate=None)
    largest.check(dataset.train, seed=seeds[0])  # too many are refused before the work, not after
    trial = _Trial(dataset, architecture, recipe, split, journal, device)
    points = []
    with progress.task("poison curve", len(planned) * len(seeds)) as task:
        for count in planned:
            results = []
            for seed in seeds:
                results.append(trial.measured(poison, count, seed))
                task.advance(1, count=count, success=f"{results[-1]['attack_success_rate']:.3f}")
            points.append(_point(count, results))
    return Curve(points=tuple(points), seeds=tuple(seeds))


def _point(count: int, results: Sequence[dict[str, float]]) -> CurvePoint:
    rates = {
        name: mean_over_seeds([result[name] for result in results], bounds=(0, 1))
        for name in MEASURED
    }
    return CurvePoint(count=count, **rates)


@dataclass(frozen=True)
class _Trial:
    """One training and its measure, kept in the journal."""

    dataset: Dataset
    architecture: str
    recipe: Recipe
    split: str
    journal: Path | None
    device: torch.device | None

    def measured(self, poison: PoisonAttack, count: int, seed: int) -> dict[str, float]:
        """Return success and clean accuracy of one training, or what the journal has of it."""
        plan = replace(poison, count=max(1, count), rate=None)
        if self.journal is None:
            return self._made(plan, count, seed)
        path = self.journal / f"{plan.name}-{count}-{seed}-{self._key(plan, count, seed)}.json"
        if path.is_file():
            kept: dict[str, float] = json.loads(path.read_text("utf-8"))
            return kept
        result = self._made(plan, count, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(canonical_json(result), "utf-8")
        partial.replace(path)
        return result

    def _made(self, plan: PoisonAttack, count: int, seed: int) -> dict[str, float]:
        data = self.dataset
        height, width, channels = data.shape
        poisoned = plan.apply(data.train, seed=seed, validation=data.validation)
        net = build(self.architecture, (channels, height, width), len(data.classes), seed=seed)
        images = poisoned.images if count else data.train
        model = train(
            net, images, data.validation, self.recipe, seed=seed, device=self.device
        ).module
        backdoor = evaluate_backdoor(model, data.split(self.split), plan)
        success = backdoor.attack_success_rate.value
        if plan.shown == "victim":
            success = float(evaluate_victim(model, data.validation, poisoned.manifest).hit)
        return {"attack_success_rate": success, "clean_accuracy": backdoor.clean_accuracy.value}

    def _key(self, plan: PoisonAttack, count: int, seed: int) -> str:
        """Return a digest of all that the numbers hang on."""
        facts = {
            "poison": plan.name,
            "fields": asdict(plan),
            "count": count,
            "seed": seed,
            "dataset": self.dataset.digest,
            "split": self.split,
            "architecture": self.architecture,
            "recipe": asdict(self.recipe) | {"keep": self.recipe.keep},
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        return sha256_bytes(canonical_json(facts).encode()).removeprefix("sha256:")[:24]
