"""What both reports did, in the stages of the run: their poisons, their defences, their figures."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

from purpleteam.assignment.reports import DefenceA, fgsm_set, joined
from purpleteam.assignment.threats import tables_of
from purpleteam.attacks.poison import POISONS, PoisonAttack
from purpleteam.core.config import from_file
from purpleteam.core.records import Note, Record, ThreatStatus
from purpleteam.defences.evaluate import transfer_accuracy
from purpleteam.defences.training import DEFENCES
from purpleteam.models.loading import LoadedModel
from purpleteam.pipeline.run import STAGES
from purpleteam.pipeline.stages.defences import defence_of, hardened_by
from purpleteam.pipeline.stages.models import baseline, recipe_of
from purpleteam.pipeline.stages.poison import measured
from purpleteam.pipeline.stages.threats import system_of
from purpleteam.pipeline.stages.trial import plant
from purpleteam.pipeline.state import Piece, Run

REPORTS = ("report_a", "report_b")
SEVENS, POISONED = 6265, 100
"""Sevens in MNIST's training file, and how many of them both reports changed."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a profile says under `[options.assignment]`."""

    poisons: tuple[str, ...] = REPORTS
    """Whose poisons are repeated."""
    defences: tuple[str, ...] = REPORTS
    """Whose defences are repeated."""
    recipe: str = "report"
    """Training recipe of their poisoned models and of the clean one beside them."""
    architecture: str = "report_cnn"
    """Their nets did not normalise."""
    epochs: int | None = None
    """Of these trainings; by default as many as of the run's own poisoned models."""
    count: int | None = None
    """Images that their poisons change; by default as large a share as 100 of 6,265 sevens."""


def publish(run: Run) -> None:
    """Record what both reports published, to stand beside what is measured."""
    facts = from_file(Path(__file__).parent / "figures.toml")
    run.cell("data", "published figures", {}, lambda: [Note(name="published-figures", facts=facts)])


def poison_as_reported(run: Run) -> Iterator[Piece]:
    """Train on both reports' poisoned sets, and measure what their triggers do."""
    for name in run.options("assignment", Options).poisons:
        yield Piece(f"poison by {name}", partial(_poison, run, name))


def defend_as_reported(run: Run) -> Iterator[Piece]:
    """Harden as both reports did; measure by transfer, as they did, and white-box."""
    before = baseline(run)
    for recipe in run.options("assignment", Options).defences:
        name = f"{recipe.replace('_', '-')}-defence"

        def by_recipe(recipe: str = recipe, name: str = name) -> Iterator[Piece]:
            yield from hardened_by(run, recipe, name, before)
            yield Piece(f"transfer to {name}", partial(_transfer, run, recipe, name, before))

        yield Piece(f"harden by {recipe}", by_recipe)
    for maker in REPORTS if "hardened" in run.models else ():
        transfer = partial(_transfer, run, maker, "hardened", before)
        yield Piece(f"transfer of {maker} to hardened", transfer)


def _poison(run: Run, name: str) -> None:
    asked = run.options("assignment", Options)
    # the reports held nothing back for validation, so neither is here
    images = joined(run.train, run.dataset.validation)
    of_target = int((images.labels == run.target_label).sum())
    count = asked.count or max(1, round(of_target * POISONED / SEVENS))
    plan: PoisonAttack = replace(POISONS[name](), count=count, target_label=run.target_label)
    recipe = recipe_of(asked.recipe, asked.epochs or run.config.poison.epochs)
    trial = plant(
        run,
        "attacks",
        (f"{name.replace('_', '-')}-poisoned", "report-clean"),
        plan,
        recipe,
        run.config.seed,
        images=images,
        architecture=asked.architecture,
        keep=recipe.keep,
        trained_on=len(images),
    )
    measured(run, trial)


def _transfer(run: Run, maker: str, name: str, before: LoadedModel) -> list[Record]:
    """Measure accuracy on images that were made against the undefended model."""
    model, own, test = run.models[name], name != "hardened", run.dataset.test
    epsilon = cast("DefenceA", defence_of(run, maker) if own else DEFENCES[maker]()).epsilon

    def measure() -> list[Record]:
        images = fgsm_set(before.module, test, epsilon, wrap=maker == "report_b")
        how = {"attack": "fgsm", "norm": "linf", "epsilon": epsilon}
        how |= {"made_as": maker, "made_against": before.digest}
        tested = [(net.module, run.subject(net).about()) for net in (model, *[before] * own)]
        return [transfer_accuracy(net, images, test, about, **how) for net, about in tested]

    of = {"maker": maker, "epsilon": epsilon, "model": model.digest, "against": before.digest}
    return run.cell("defences", f"transfer {name}", of, measure)


def trace_threats(run: Run) -> None:
    """Record which threats of both reports are answered, and how."""
    statuses = [record for record in run.folder.records() if isinstance(record, ThreatStatus)]

    def trace() -> list[Record]:
        return [Note(name="published-threats", facts=tables_of(system_of(run), statuses))]

    run.cell("threats", "published threats", {"of": [status.id for status in statuses]}, trace)


STAGES["data"].append(publish)
STAGES["threats"].append(trace_threats)
STAGES["attacks"].append(poison_as_reported)
STAGES["defences"].insert(1, defend_as_reported)
