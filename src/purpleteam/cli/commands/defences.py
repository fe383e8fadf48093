"""harden: train a model that is harder to break, and attack it white-box."""

from __future__ import annotations

from typing import Annotated

import typer

from purpleteam.cli.options import (
    Arch,
    Budget,
    Classes,
    DatasetOption,
    Debug,
    Device,
    Epochs,
    Json,
    Normalise,
    Out,
    Quiet,
    Seed,
    Threads,
    Weights,
    number_option,
)
from purpleteam.cli.outputs import stem_to_write
from purpleteam.cli.screen import answer, progress

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command()(harden)


def harden(
    dataset: DatasetOption = "digits",
    recipe: Annotated[
        str, typer.Option("--recipe", help="pgd, fast, seed_a or seed_b, with [:field=value,...].")
    ] = "pgd",
    epsilon: Annotated[
        float | None, number_option("--epsilon", "Radius that is trained for, such as 8/255.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Baseline; only seed_a and seed_b attack one.")
    ] = None,
    weights: Weights = None,
    normalise: Normalise = None,
    classes: Classes = None,
    arch: Arch = "classic_cnn",
    epochs: Epochs = None,
    budget: Budget = None,
    out: Out = None,
    seed: Seed = 0,
    threads: Threads = None,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a model by adversarial training and store it; attack it with purple attack."""
    from purpleteam.cli.lab import (
        Asked,
        Lab,
        checkpoint_of,
        code_of,
        recipe_from,
        seconds_of,
        trained_answer,
    )
    from purpleteam.defences import DEFENCES, Hardening

    name, defence = recipe_from(DEFENCES, recipe, epochs, epsilon=epsilon)
    seconds = seconds_of(budget)
    brought = Asked(weights, code_of(arch, model), normalise, classes)
    lab = Lab.open(dataset, device=device, threads=threads, model=brought, training=True)
    baseline = None if model is None else lab.load(model)
    stem = stem_to_write(out, f"{lab.dataset.name}-{name}")
    with progress(quiet or as_json) as bar:
        work = Hardening(
            net=lab.net(arch, seed, baseline),
            dataset=lab.dataset,
            baseline=None if baseline is None else baseline.module,
            seed=seed,
            checkpoint=checkpoint_of(stem),
            device=lab.device,
            description=f"harden by {name}",
            progress=bar,
            budget_seconds=seconds,
        )
        training = defence.harden(work)
    stored = lab.store(
        training,
        stem,
        arch,
        {"name": name},
        defence,
        seed,
        parent=None if baseline is None else baseline.digest,
    )
    values, lines = trained_answer(stored, training)
    answer(values | lab.data(), [*lines, *lab.flags()], as_json=as_json)
