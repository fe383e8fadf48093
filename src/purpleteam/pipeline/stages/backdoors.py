"""Stage defences, second part: backdoors planted, looked for without being told, and removed.

Each poison is planted in a training set of its own and learned by a model of its own; a clean
model of the same recipe and seed stands beside it, is looked at in the same way, and shows what
the detectors say where there is nothing to find. What was planted is used for one thing only:
to count afterwards what was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from purpleteam.attacks.poison import PoisonAttack
from purpleteam.attacks.poison.asked import poison_from
from purpleteam.attacks.poison.evaluate import evaluate_backdoor
from purpleteam.core.records import Record
from purpleteam.data.images import ImageSet
from purpleteam.models.loading import LoadedModel
from purpleteam.models.recipes import Recipe
from purpleteam.models.training import train
from purpleteam.pipeline.stages.hunting import (
    planted_pictures,
    scanned_model,
    searched,
    summary,
)
from purpleteam.pipeline.stages.models import BASELINE, baseline, evaluated, recipe_of, served
from purpleteam.pipeline.stages.repairs import repaired
from purpleteam.pipeline.stages.trial import CLEAN, Trial
from purpleteam.pipeline.work import Work

__all__ = ["hunt_backdoors", "look_at_own", "planted_by"]


def look_at_own(work: Work) -> None:
    """Look into the baseline, its training set and the served model: nothing was planted there."""
    if not work.config.backdoors.own:
        return
    seed = work.config.seed
    mine = Trial(BASELINE, seed, work.dataset.train, baseline(work), own=True)
    searched(work, mine)
    scanned_model(work, mine)
    model = served(work)
    if model is not None:
        scanned_model(work, replace(mine, name=model.name, model=model))


def hunt_backdoors(work: Work) -> None:
    """Go through every seed: the clean model first, then each poison."""
    asked = work.config.backdoors
    first, clean = work.config.seed, max(asked.clean, asked.seeds if asked.attacks else 0)
    found: list[Record] = []
    for seed in range(first, first + clean):
        trial = _clean(work, seed)
        found += _looked_at(work, trial)
        for text in asked.attacks if seed < first + asked.seeds else ():
            planted = _planted(work, text, seed, trial.model)
            found += _looked_at(work, planted)
            for repair in asked.repairs:
                repaired(work, planted, repair)
    if found:
        ids = [one.id for one in found]
        work.cell("defences", "summary", {"of": ids}, lambda: summary(work, found))


def planted_by(work: Work, text: str) -> PoisonAttack:
    """Return the poison that an entry of `backdoors.attacks` means.

    Raises:
        UsageError: there is no such poison, or a field of it is wrong.
    """
    asked, last = work.config.backdoors, len(work.dataset.classes) - 1
    given = {"target_label": min(asked.target_label, last)}
    return poison_from(text, given, labels=last + 1, where="backdoors.attacks")


def _clean(work: Work, seed: int) -> Trial:
    images = work.dataset.train
    model = _learned(work, CLEAN, images, seed, {})
    evaluated(work, "defences", model, CLEAN, seed)
    return Trial(CLEAN, seed, images, model)


def _planted(work: Work, text: str, seed: int, twin: LoadedModel) -> Trial:
    poison = planted_by(work, text)
    poisoned = poison.apply(work.dataset.train, seed=seed)
    name = f"backdoored-{_slug(text)}"
    how = poison.describe(work.dataset.shape[2])
    model = _learned(work, name, poisoned.images, seed, how)
    evaluated(work, "defences", model, name, seed)
    trial = Trial(name, seed, poisoned.images, model, poison, poisoned, twin)
    _success(work, trial, how)
    planted_pictures(work, trial)
    return trial


def _slug(text: str) -> str:
    """Return `badnets-count-100` for `badnets:count=100`: a name for records and files."""
    kept = "".join(c if c.isalnum() or c == "_" else "-" for c in text)
    return "-".join(filter(None, kept.split("-")))


def _learned(
    work: Work, name: str, images: ImageSet, seed: int, poison: dict[str, Any]
) -> LoadedModel:
    asked = work.config.backdoors
    recipe: Recipe = recipe_of(asked.recipe, asked.epochs)
    stem = f"{name}-{seed}"
    return work.trained(
        "defences",
        name,
        stem=stem,
        architecture=asked.architecture,
        seed=seed,
        recipe={"name": asked.recipe, **asdict(recipe)} | ({"poison": poison} if poison else {}),
        data_digest=images.digest,
        make=lambda net, checkpoint: train(
            net,
            images,
            work.dataset.validation,
            recipe,
            seed=seed,
            checkpoint=checkpoint,
            device=work.device,
            description=f"train {stem}",
            progress=work.progress,
        ),
    )


def _success(work: Work, trial: Trial, how: dict[str, Any]) -> None:
    """Measure what the backdoor does to the test images, beside the clean model's base rate."""
    poison, poisoned, twin = trial.poison, trial.poisoned, trial.twin
    if poison is None or poisoned is None or twin is None:
        return

    def measure() -> Sequence[Record]:
        found = evaluate_backdoor(
            trial.model.module, work.dataset.test, poison, clean_model=twin.module
        )
        subject = trial.subject(work) | {"clean_model": twin.digest}
        facts = how | {"poison_rate": poisoned.rate, "lab": True}
        return [
            replace(one, seed=trial.seed) for one in found.measurements(subject, facts, trial.seed)
        ]

    depends_on = {"poison": how, "model": trial.model.digest, "twin": twin.digest}
    work.cell("defences", f"success {trial.stem}", depends_on, measure)


def _looked_at(work: Work, trial: Trial) -> list[Record]:
    asked = work.config.backdoors
    found: list[Record] = []
    if asked.search_training_set:
        found += searched(work, trial)
    if asked.scan_models:
        found += scanned_model(work, trial)
    return found
