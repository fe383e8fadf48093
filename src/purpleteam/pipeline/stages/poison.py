"""Stage attacks, second part: a few changed training images, and what they buy."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from purpleteam.attacks.poison import PoisonAttack
from purpleteam.attacks.poison.asked import poison_from
from purpleteam.attacks.poison.evaluate import sweep
from purpleteam.core.config import parse_part
from purpleteam.core.records import Measurement, Record
from purpleteam.core.statistics import mean_over_seeds
from purpleteam.models.inference import logits
from purpleteam.pipeline.stages.models import evaluated, recipe_of, served
from purpleteam.pipeline.stages.trial import Planted, backdoor, plant, scan
from purpleteam.pipeline.state import Piece, Run
from purpleteam.verbs._pictures import Picture, gallery

Trained = Callable[[int], Planted]  # trains on a poison with a seed
MOST, ONE_IN = 100, 43  # images that are poisoned where nobody says how many: 100, or fewer of few


def poison_models(run: Run) -> Iterator[Piece]:
    """Train on each poisoned set and measure clean accuracy, success rate and base rate."""
    asked, first = run.config.poison, run.config.seed
    for text in asked.attacks:
        results: list[list[Record]] = []
        plan = poison_of(run, text)
        names = (f"poisoned-{plan.name}", "clean")
        recipe = recipe_of(asked.recipe, asked.epochs)
        trial = partial(plant, run, "attacks", names, plan, recipe)

        def train(trial: Trained, seed: int, results: list[list[Record]]) -> None:
            results.append(measured(run, trial(seed)))

        def look_into(trial: Trained) -> Iterator[Piece]:  # as if nothing were known of it
            made = trial(first)
            yield Piece(f"scan {made.stem}", partial(scan, run, made, "scan"))
            yield Piece(f"search {made.stem}", partial(scan, run, made, "search"))

        for seed in range(first, first + asked.trainings):
            yield Piece(f"poison by {text}, seed {seed}", partial(train, trial, seed, results))
        if len(results) > 1:
            yield Piece(f"means {text}", partial(_over_trainings, run, plan, results))
        if results and plan.shown == "trigger":
            yield Piece(f"gallery {text}", partial(_show_trigger, run, plan))
        if asked.scan:
            yield Piece(f"look into poisoned-{plan.name}", partial(look_into, trial))


def measured(run: Run, trial: Planted) -> list[Record]:
    """Evaluate both models of a trial, and measure what the trigger does to them."""
    for model in (trial.clean, trial.model):
        evaluated(run, "attacks", model, trial.seed)
    return backdoor(run, "attacks", trial)


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


def _over_trainings(run: Run, plan: PoisonAttack, results: Sequence[Sequence[Record]]) -> None:
    """Record means over trainings; each value is kept, nothing is pooled."""
    records = [record for made in results for record in made]
    rates = [record for record in records if isinstance(record, Measurement)]

    def measure() -> list[Record]:
        means: list[Record] = []
        for name, least in (("attack_success_rate", 0.0), ("clean_accuracy_difference", -1.0)):
            parts = [record for record in rates if record.name == name]
            values = [float(part.value.value) for part in parts]  # type: ignore[arg-type]
            subject, how = dict(parts[0].subject), dict(parts[0].how)
            for key in ("model", "clean_model"):
                subject.pop(key, None)
            how.pop("training_set", None)
            means.append(
                Measurement(
                    name=f"{name}_mean",
                    value=mean_over_seeds(values, bounds=(least, 1.0)),
                    subject=subject | {"models": [part.subject["model"] for part in parts]},
                    how=how | {"seeds": [part.seed for part in parts]},
                    detail={"records": [part.id for part in parts]},
                )
            )
        return means

    run.cell("attacks", f"means {plan.name}", {"of": [record.id for record in records]}, measure)


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
