"""The poison curve: attack success over the number of poisons, with intervals over repetitions.

Each point is a training of its own for every seed, which draws the poisons, the starting weights
and the order of the images. Finished ones are kept, so that a stopped curve goes on where it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from purpleteam.attacks.poison import PoisonAttack
from purpleteam.attacks.poison.evaluate import evaluate_backdoor, evaluate_victim
from purpleteam.core.digest import canonical_json, sha256_bytes
from purpleteam.core.errors import UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.records import plain
from purpleteam.core.statistics import Estimate, mean_over_seeds
from purpleteam.data.images import Dataset
from purpleteam.models.loading import build
from purpleteam.models.recipes import Recipe
from purpleteam.models.training import train


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """What this many poisons achieve: means over the trainings."""

    count: int
    attack_success_rate: Estimate
    clean_accuracy: Estimate


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Points of growing count, the first of which is 0: the base rate."""

    points: tuple[CurvePoint, ...]
    seeds: tuple[int, ...]

    def count_for(self, success: float) -> int | None:
        """Return the least count tried whose mean success is at least `success`."""
        enough = (p.count for p in self.points if p.attack_success_rate.value >= success)
        return next(enough, None)

    def to_json(self) -> dict[str, Any]:
        return {
            "seeds": list(self.seeds),
            "curve": [plain(vars(point)) for point in self.points],
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
    journal: Path | None = None,
    device: torch.device | None = None,
    progress: Progress = SILENT,
) -> Curve:
    """Train on poisoned sets of each count and seed, and measure each model.

    The train split is poisoned, the validation split chooses the epoch, the test split is measured.
    The count 0 is added: the base rate. Finished trainings are kept in the folder `journal`.
    """
    if len(set(seeds)) < 2:
        raise UsageError(f"a curve needs at least 2 seeds for its intervals, not {len(set(seeds))}")
    if not counts or min(counts) < 1:
        raise UsageError(f"the counts of a curve are at least 1, not {list(counts)}")
    planned = [0, *sorted(set(counts))]
    largest = replace(poison, count=planned[-1], rate=None)
    largest.check(dataset.train, seed=seeds[0])  # too many are refused before the work, not after

    def trained(plan: PoisonAttack, count: int, seed: int) -> dict[str, float]:
        height, width, channels = dataset.shape
        poisoned = plan.apply(dataset.train, seed=seed, validation=dataset.validation)
        net = build(architecture, (channels, height, width), len(dataset.classes), seed=seed)
        images = poisoned.images if count else dataset.train
        model = train(net, images, dataset.validation, recipe, seed=seed, device=device).module
        backdoor = evaluate_backdoor(model, dataset.test, plan)
        success = backdoor.attack_success_rate.value
        if plan.shown == "victim":
            success = float(evaluate_victim(model, dataset.validation, poisoned.manifest).hit)
        return {"attack_success_rate": success, "clean_accuracy": backdoor.clean_accuracy.value}

    def kept(plan: PoisonAttack, count: int, seed: int) -> dict[str, float]:
        if journal is None:
            return trained(plan, count, seed)
        facts = {  # all that the numbers hang on
            "poison": plan.name,
            "fields": asdict(plan),
            "count": count,
            "seed": seed,
            "dataset": dataset.digest,
            "split": "test",
            "architecture": architecture,
            "recipe": asdict(recipe) | {"keep": recipe.keep},
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        key = sha256_bytes(canonical_json(facts).encode()).removeprefix("sha256:")[:24]
        path = journal / f"{plan.name}-{count}-{seed}-{key}.json"
        if not path.is_file():
            result = trained(plan, count, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}.partial")
            partial.write_text(canonical_json(result), "utf-8")
            partial.replace(path)
        values: dict[str, float] = json.loads(path.read_text("utf-8"))
        return values

    points = []
    with progress.task("poison curve", len(planned) * len(seeds)) as task:
        for count in planned:
            plan, results = replace(poison, count=max(1, count), rate=None), []
            for seed in seeds:
                results.append(kept(plan, count, seed))
                task.advance(1, count=count, success=f"{results[-1]['attack_success_rate']:.3f}")
            means = {
                name: mean_over_seeds([result[name] for result in results], bounds=(0, 1))
                for name in results[0]
            }
            points.append(CurvePoint(count=count, **means))
    return Curve(points=tuple(points), seeds=tuple(seeds))
