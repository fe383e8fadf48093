"""Stage attacks, second part: a few changed training images, and what they buy.

Both seeds' recipes, trained as the seeds trained, stand beside the one that works. Each model
that was trained on a poisoned set has a clean twin: the same recipe and seed on the clean set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial

import numpy as np

from purpleteam.attacks.poison import POISONS, PoisonAttack
from purpleteam.attacks.poison.evaluate import Backdoor, evaluate_backdoor
from purpleteam.attacks.poison.sweep import sweep
from purpleteam.core.records import Artefact, Measurement, Note, Record
from purpleteam.core.statistics import mean_over_seeds, paired_difference
from purpleteam.data.images import ImageSet
from purpleteam.models.inference import logits
from purpleteam.models.loading import LoadedModel
from purpleteam.models.recipes import Recipe
from purpleteam.models.training import train
from purpleteam.pipeline.stages.models import evaluated, recipe_of, served
from purpleteam.pipeline.stages.pictures import Picture, gallery
from purpleteam.pipeline.work import Piece, Work

__all__ = ["NAMES", "poison_models", "poison_of", "sweep_served", "training_images"]

TWINS = {"seed_a": "clean-twin-kept", "seed_b": "clean-twin-kept", "badnets": "clean-twin"}
"""What the model of the same recipe and seed on the clean set is called."""
NAMES = {"seed_a": "poisoned-kept", "seed_b": "poisoned-kept-b", "badnets": "poisoned-relabelled"}
"""What a model that was trained on each poison is called in records."""
MOST, ONE_IN = 100, 43
"""Images that the poison that works changes where nobody says how many: 100, or fewer of few."""


def poison_models(work: Work) -> Iterator[Piece]:
    """Train on each poisoned set and measure clean accuracy, success rate and base rate."""
    first = work.config.seed
    found: list[list[Record]] = []

    def measured(name: str, seed: int) -> None:
        records = _measured(work, poison_of(work, name), seed)
        if name == "badnets":
            found.append(records)

    for name in ("seed_a", "seed_b"):
        yield Piece(f"poison by {name}", partial(measured, name, first))
    for seed in range(first, first + work.config.poison.seeds):
        yield Piece(f"poison by badnets, seed {seed}", partial(measured, "badnets", seed))
    if len(found) > 1:
        yield Piece("means badnets", partial(_over_seeds, work, poison_of(work, "badnets"), found))
    if found:
        yield Piece("gallery trigger", partial(_shown, work, poison_of(work, "badnets")))


def sweep_served(work: Work) -> None:
    """Try common triggers on the served model, where it reads this dataset."""
    model = served(work, "attacks", "Triggers on the served model")
    if model is None:
        return
    limit = min(1000, len(work.dataset.test))

    def look() -> list[Record]:
        subject = work.subject(model, model.name, limit=limit)
        return [sweep(model.module, work.dataset.test.first(limit), subject)]

    work.cell("attacks", "trigger sweep", {"model": model.digest, "limit": limit}, look)


def poison_of(work: Work, name: str) -> PoisonAttack:
    """Return the poison attack of that name with the count and target that are asked for."""
    asked = work.config.poison
    typed = asked.count if name == "badnets" else asked.seeds_count
    usual = _share if name == "badnets" else _seeds_share
    count = usual(work) if typed is None else typed
    return replace(POISONS[name](), count=count, target_label=work.target_label)


def _share(work: Work) -> int:
    return min(MOST, max(1, len(work.dataset.train) // ONE_IN))


def _seeds_share(work: Work) -> int:
    """Return how many images of the target class are as large a share as the seeds' 100 sevens."""
    splits = (work.dataset.train, work.dataset.validation)
    of_target = sum(int((part.labels == work.target_label).sum()) for part in splits)
    return max(1, round(of_target * 100 / 6265))


def _measured(work: Work, poison: PoisonAttack, seed: int) -> list[Record]:
    name = NAMES[poison.name]
    clean = training_images(work, poison)
    poison.check(clean, seed=seed, test=work.dataset.test)
    poisoned = poison.apply(clean, seed=seed)
    twin_name = TWINS[poison.name]
    recipe = _recipe(work, poison)
    as_seeds = poison.name != "badnets"
    architecture = work.config.poison.seeds_architecture if as_seeds else None
    twin = _trained(work, twin_name, clean, seed, recipe, {}, architecture)
    how = poison.describe(work.dataset.shape[2])
    model = _trained(work, name, poisoned.images, seed, recipe, how, architecture)
    evaluated(work, "attacks", twin, twin_name, seed)
    evaluated(work, "attacks", model, name, seed)

    def measure() -> list[Record]:
        test = work.dataset.test
        found = evaluate_backdoor(model.module, test, poison, clean_model=twin.module)
        without = evaluate_backdoor(twin.module, test, poison)
        subject = work.subject(model, name) | {"clean_model": twin.digest}
        facts = how | {"poison_rate": poisoned.rate, "training_set": poisoned.images.digest}
        return [
            *found.measurements(subject, facts, seed),
            _clean_difference(subject, facts, seed, found, without),
        ]

    depends_on = {"poison": how, "model": model.digest, "twin": twin.digest, "seed": seed}
    return work.cell("attacks", f"backdoor {name}", depends_on, measure)


def _clean_difference(
    subject: dict[str, object],
    facts: dict[str, object],
    seed: int,
    found: Backdoor,
    without: Backdoor,
) -> Measurement:
    return Measurement(
        name="clean_accuracy_difference",
        value=paired_difference(without.clean_correct.tolist(), found.clean_correct.tolist()),
        subject=subject,
        how=facts,
        seed=seed,
    )


def training_images(work: Work, poison: PoisonAttack) -> ImageSet:
    """Return the images to poison; the seeds held none back for validation, so neither is here."""
    train, held = work.train, work.dataset.validation
    if poison.name == "badnets":
        return train
    return ImageSet(
        np.concatenate([train.images, held.images]), np.concatenate([train.labels, held.labels])
    )


def _recipe(work: Work, poison: PoisonAttack) -> tuple[str, Recipe]:
    """Return the training recipe, by name: the seeds' poisons are trained as the seeds did."""
    asked = work.config.poison
    name = asked.recipe if poison.name == "badnets" else asked.seeds_recipe
    return name, recipe_of(name, asked.epochs)


def _trained(
    work: Work,
    name: str,
    images: ImageSet,
    seed: int,
    named_recipe: tuple[str, Recipe],
    poison: dict[str, object],
    architecture: str | None,
) -> LoadedModel:
    recipe_name, recipe = named_recipe
    stem = f"{name}-{seed}"
    if stem in work.models:
        return work.models[stem]
    return work.trained(
        "attacks",
        name,
        role="poisoned" if poison else "clean_twin",
        stem=stem,
        architecture=architecture,
        seed=seed,
        recipe={"name": recipe_name, **asdict(recipe)}
        | ({"keep": recipe.keep, "trained_on": len(images)} if architecture else {})
        | ({"poison": poison} if poison else {}),
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


def _over_seeds(work: Work, poison: PoisonAttack, found: Sequence[Sequence[Record]]) -> None:
    """Record means over seeds; each value is kept, nothing is pooled."""

    def measure() -> list[Record]:
        means: list[Record] = []
        for name, least in (("attack_success_rate", 0.0), ("clean_accuracy_difference", -1.0)):
            parts = [
                one
                for records in found
                for one in records
                if isinstance(one, Measurement) and one.name == name
            ]
            values = [float(one.value.value) for one in parts]  # type: ignore[arg-type]
            subject = {
                key: value
                for key, value in parts[0].subject.items()
                if key not in ("model", "clean_model")
            } | {"models": [one.subject["model"] for one in parts]}
            how = {key: value for key, value in parts[0].how.items() if key != "training_set"}
            means.append(
                Measurement(
                    name=f"{name}_mean",
                    value=mean_over_seeds(values, bounds=(least, 1.0)),
                    subject=subject,
                    how=how | {"seeds": [one.seed for one in parts]},
                    detail={"records": [one.id for one in parts]},
                )
            )
        return means

    ids = [record.id for records in found for record in records]
    work.cell("attacks", f"means {poison.name}", {"of": ids}, measure)


def _shown(work: Work, poison: PoisonAttack, count: int = 8) -> None:
    """Show triggered test images and what the poisoned model reads."""
    model = work.models[f"{NAMES[poison.name]}-{work.config.seed}"]

    def look() -> Sequence[Note | Artefact]:
        test = work.dataset.test
        chosen = np.flatnonzero(test.labels != poison.target_label)[:count]
        stamped = poison.trigger.stamp(test.images[chosen])
        read = logits(model.module, stamped).argmax(1)
        pictures: list[Picture] = [
            (
                f"triggered-{number}",
                stamped[number],
                f"a {work.dataset.classes[int(test.labels[place])]}, "
                f"read as {work.dataset.classes[int(read[number])]}",
            )
            for number, place in enumerate(chosen)
        ]
        return gallery(work.run, "trigger", "Test images with the trigger", pictures)

    work.cell("attacks", "gallery trigger", {"model": model.digest}, look)
