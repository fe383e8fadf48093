"""Stage attacks, second part: a few changed training images, and what they buy.

Each model that was trained on a poisoned set stands beside a clean one of the same recipe and
seed, which gives the base rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from purpleteam.attacks.poison import PoisonAttack, PoisonedSet
from purpleteam.attacks.poison.asked import poison_from
from purpleteam.attacks.poison.evaluate import sweep
from purpleteam.core.config import parse_part
from purpleteam.core.records import Measurement, Record
from purpleteam.core.statistics import mean_over_seeds
from purpleteam.data.images import ImageSet
from purpleteam.models.inference import logits
from purpleteam.models.loading import LoadedModel
from purpleteam.models.recipes import Recipe
from purpleteam.pipeline.stages.models import evaluated, learned, recipe_of, served
from purpleteam.pipeline.stages.trial import Trial, scan_images, scan_trial_model
from purpleteam.pipeline.state import Piece, Run
from purpleteam.verbs._pictures import Picture, gallery
from purpleteam.verbs.poison import backdoor_records

MOST, ONE_IN = 100, 43
"""Images that are poisoned where nobody says how many: 100, or fewer of few."""


def poison_models(run: Run) -> Iterator[Piece]:
    """Train on each poisoned set and measure clean accuracy, success rate and base rate."""
    asked = run.config.poison
    recipe = recipe_of(asked.recipe, asked.epochs)
    for text in asked.attacks:
        results: list[list[Record]] = []
        plan = poison_of(run, text)

        def measured(plan: PoisonAttack, seed: int, results: list[list[Record]]) -> None:
            name = f"poisoned-{plan.name}"
            results.append(poisoned_model(run, plan, name, "clean", run.train, recipe, seed))

        for seed in range(run.config.seed, run.config.seed + asked.trainings):
            yield Piece(f"poison by {text}, seed {seed}", partial(measured, plan, seed, results))
        if len(results) > 1:
            yield Piece(f"means {text}", partial(over_trainings, run, plan, results))
        if results and plan.shown == "trigger":
            yield Piece(f"gallery {text}", partial(show_trigger, run, plan))
        if asked.scan:
            yield Piece(f"look into poisoned-{plan.name}", partial(_look_into, run, plan, recipe))


def _look_into(run: Run, plan: PoisonAttack, recipe: tuple[str, Recipe]) -> Iterator[Piece]:
    """Look into the first training on a poison as if nothing were known of it."""
    seed, name = run.config.seed, f"poisoned-{plan.name}"
    made = plan.apply(run.train, seed=seed)
    clean, model = _both(run, plan, made, name, "clean", run.train, recipe, seed)
    trial = Trial(name, seed, made.images, model, poison=plan, poisoned=made, clean=clean)
    yield Piece(f"scan {trial.stem}", partial(scan_trial_model, run, trial))
    yield Piece(f"search {trial.stem}", partial(scan_images, run, trial))


def sweep_served(run: Run) -> None:
    """Try common triggers on the served model, where it reads this dataset."""
    model = served(run, "attacks", "Triggers on the served model")
    if model is None:
        return
    limit = min(1000, len(run.dataset.test))

    def look() -> list[Record]:
        subject = run.subject(model, limit=limit)
        return [sweep(model.module, subject.images, subject.about())]

    run.cell("attacks", "trigger sweep", {"model": model.digest, "limit": limit}, look)


def poison_of(run: Run, text: str) -> PoisonAttack:
    """Return the poison attack that `name:field=value,...` means, of the usual count and target."""
    asked = run.config.poison
    given: dict[str, object] = {"target_label": run.target_label}
    if "rate" not in parse_part(text)[1]:
        few = min(MOST, max(1, len(run.dataset.train) // ONE_IN))
        given["count"] = few if asked.count is None else asked.count
    return poison_from(text, given, dataset=run.dataset, where="poison.attacks")


def poisoned_model(
    run: Run,
    plan: PoisonAttack,
    name: str,
    clean_name: str,
    images: ImageSet,
    recipe: tuple[str, Recipe],
    seed: int,
    *,
    architecture: str | None = None,
    more: dict[str, object] | None = None,
) -> list[Record]:
    """Train on a poisoned set and on the clean one; measure what the trigger does to both."""
    plan.check(images, seed=seed, test=run.dataset.test)
    made = plan.apply(images, seed=seed)
    clean, poisoned = _both(
        run, plan, made, name, clean_name, images, recipe, seed, architecture, more
    )
    evaluated(run, "attacks", clean, clean_name, seed)
    evaluated(run, "attacks", poisoned, name, seed)
    how = plan.describe(run.dataset.shape[2])
    depends_on = {"poison": how, "model": poisoned.digest, "clean": clean.digest, "seed": seed}
    subject = run.subject(poisoned, name)
    return run.cell(
        "attacks",
        f"backdoor {name}",
        depends_on,
        lambda: backdoor_records(subject, subject.loaded, clean, plan, made, seed),
    )


def _both(
    run: Run,
    plan: PoisonAttack,
    made: PoisonedSet,
    name: str,
    clean_name: str,
    images: ImageSet,
    recipe: tuple[str, Recipe],
    seed: int,
    architecture: str | None = None,
    more: dict[str, object] | None = None,
) -> tuple[LoadedModel, LoadedModel]:
    """Return the clean model and the poisoned one, of the same recipe and seed."""

    def model(name: str, images: ImageSet, facts: dict[str, object]) -> LoadedModel:
        return learned(
            run,
            "attacks",
            name,
            images,
            recipe,
            role="poisoned" if facts else "clean_twin",
            seed=seed,
            stem=f"{name}-{seed}",
            architecture=architecture,
            more=(more or {}) | facts,
        )

    poison: dict[str, object] = {"poison": plan.describe(run.dataset.shape[2])}
    return model(clean_name, images, {}), model(name, made.images, poison)


def over_trainings(run: Run, plan: PoisonAttack, results: Sequence[Sequence[Record]]) -> None:
    """Record means over trainings; each value is kept, nothing is pooled."""

    def measure() -> list[Record]:
        means: list[Record] = []
        for name, least in (("attack_success_rate", 0.0), ("clean_accuracy_difference", -1.0)):
            parts = [
                record
                for records in results
                for record in records
                if isinstance(record, Measurement) and record.name == name
            ]
            values = [float(part.value.value) for part in parts]  # type: ignore[arg-type]
            subject = {
                key: value
                for key, value in parts[0].subject.items()
                if key not in ("model", "clean_model")
            } | {"models": [part.subject["model"] for part in parts]}
            how = {key: value for key, value in parts[0].how.items() if key != "training_set"}
            means.append(
                Measurement(
                    name=f"{name}_mean",
                    value=mean_over_seeds(values, bounds=(least, 1.0)),
                    subject=subject,
                    how=how | {"seeds": [part.seed for part in parts]},
                    detail={"records": [part.id for part in parts]},
                )
            )
        return means

    ids = [record.id for records in results for record in records]
    run.cell("attacks", f"means {plan.name}", {"of": ids}, measure)


def show_trigger(run: Run, plan: PoisonAttack, count: int = 8) -> None:
    """Show triggered test images and what the poisoned model reads."""
    model = run.models[f"poisoned-{plan.name}-{run.config.seed}"]

    def look() -> Sequence[Record]:
        test, names = run.dataset.test, run.dataset.classes
        chosen = np.flatnonzero(test.labels != plan.target_label)[:count]
        shown = plan.triggered(test.images[chosen])
        read = logits(model.module, shown).argmax(1)
        pictures: list[Picture] = [
            (
                f"triggered-{plan.name}-{number}",
                shown[number],
                f"a {names[int(test.labels[row])]}, read as {names[int(read[number])]}",
            )
            for number, row in enumerate(chosen)
        ]
        return gallery(run.folder, "trigger", "Test images with the trigger", pictures)

    run.cell("attacks", f"gallery {plan.name}", {"model": model.digest}, look)
