"""Stage attacks, second part: a few changed training images, and what they buy."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from purpleteam.attacks.poison import PoisonAttack
from purpleteam.attacks.poison.asked import poison_from
from purpleteam.attacks.poison.evaluate import sweep
from purpleteam.core.config import parse_part
from purpleteam.core.records import Measurement, Record
from purpleteam.core.statistics import mean_over_seeds
from purpleteam.models.inference import logits
from purpleteam.models.recipes import Recipe
from purpleteam.pipeline.stages.models import evaluated, recipe_of, served
from purpleteam.pipeline.stages.trial import plant, scan
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
        names = (f"poisoned-{plan.name}", "clean")

        def measured(plan: PoisonAttack, seed: int, results: list[list[Record]]) -> None:
            results.append(
                poisoned_model(run, plan, (f"poisoned-{plan.name}", "clean"), recipe, seed)
            )

        for seed in range(run.config.seed, run.config.seed + asked.trainings):
            yield Piece(f"poison by {text}, seed {seed}", partial(measured, plan, seed, results))
        if len(results) > 1:
            yield Piece(f"means {text}", partial(_over_trainings, run, plan, results))
        if results and plan.shown == "trigger":
            yield Piece(f"gallery {text}", partial(_show_trigger, run, plan))
        if asked.scan:
            yield Piece(f"look into {names[0]}", partial(_look_into, run, plan, names, recipe))


def _look_into(
    run: Run, plan: PoisonAttack, names: tuple[str, str], recipe: tuple[str, Recipe]
) -> Iterator[Piece]:
    """Look into the first training on a poison as if nothing were known of it."""
    trial = plant(run, "attacks", names, plan, recipe, run.config.seed)
    yield Piece(f"scan {trial.stem}", partial(scan, run, trial, "scan"))
    yield Piece(f"search {trial.stem}", partial(scan, run, trial, "search"))


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
    names: tuple[str, str],
    recipe: tuple[str, Recipe],
    seed: int,
    **how: Any,
) -> list[Record]:
    """Train on a poisoned set and on the clean one; measure what the trigger does to both.

    `names` are those of the two models in records; `how` goes to `plant`.
    """
    trial = plant(run, "attacks", names, plan, recipe, seed, **how)
    clean, made = trial.clean, trial.poisoned
    if clean is None or made is None:
        return []
    evaluated(run, "attacks", clean, names[1], seed)
    evaluated(run, "attacks", trial.model, names[0], seed)
    depends_on = {
        "poison": plan.describe(run.dataset.shape[2]),
        "model": trial.model.digest,
        "clean": clean.digest,
        "seed": seed,
    }
    subject = run.subject(trial.model, names[0], seed=seed)
    measure = partial(backdoor_records, subject, clean, plan, made)
    return run.cell("attacks", f"backdoor {names[0]}", depends_on, measure)


def _over_trainings(run: Run, plan: PoisonAttack, results: Sequence[Sequence[Record]]) -> None:
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


def _show_trigger(run: Run, plan: PoisonAttack, count: int = 8) -> None:
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
