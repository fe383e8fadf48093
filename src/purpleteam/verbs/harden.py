"""harden: train a model that is harder to break; `attack` says how much harder."""

from __future__ import annotations

from typing import Annotated, Any

from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.runfolder import RunFolder
from purpleteam.verbs.options import (
    Arch,
    Budget,
    Classes,
    Device,
    Epochs,
    Images,
    ModelOrNone,
    Normalise,
    Out,
    Seed,
    Threads,
    Weights,
)
from purpleteam.verbs.trained import Hardened, described, recipe_from, seconds_of, train_and_store
from purpleteam.verbs.verb import Option, verb


@verb()
def harden(
    images: Images = "digits",
    labels: Any = None,
    *,
    recipe: Annotated[
        Any, Option(help="Defence NAME[:field=value,...]: pgd, fast, ...; see purple ls.")
    ] = "pgd",
    epsilon: Annotated[
        float | None, Option(kind=float, help="Radius that is trained for, such as 8/255.")
    ] = None,
    model: ModelOrNone = None,
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
    name: str | None = None,
    run: RunFolder | None = None,
    progress: Progress = SILENT,
) -> Hardened:
    """Train a model by adversarial training and store it; attack it with purple attack.

    Args:
        model: the undefended model, for a defence that attacks one beforehand, and for code of
            the user's own that wants the same input.
    """
    from purpleteam.defences import DEFENCES, Hardening
    from purpleteam.verbs._subject import ModelOptions, code_of, open_subject
    from purpleteam.verbs.outputs import stem_to_write

    called, defence = recipe_from(DEFENCES, recipe, epochs, epsilon=epsilon)
    seconds = seconds_of(budget)
    subject = open_subject(
        images,
        labels,
        model=model,
        options=ModelOptions(
            weights=weights, arch=code_of(arch, model), normalise=normalise, classes=classes
        ),
        device=device,
        threads=threads,
        training=True,
        progress=progress,
    )
    subject.net(arch, seed)
    stem = stem_to_write(out, f"{subject.dataset.name}-{called}")
    baseline = subject.model
    stored, training, records = train_and_store(
        subject,
        stem,
        arch,
        described(called, defence),
        lambda net, checkpoint: defence.harden(
            Hardening(
                net=net,
                dataset=subject.dataset,
                baseline=None if baseline is None else baseline.module,
                seed=seed,
                checkpoint=checkpoint,
                device=subject.device,
                description=f"harden {name or stem.name}",
                progress=progress,
                budget_seconds=seconds,
            )
        ),
        seed=seed,
        role="hardened",
        name=name,
        parent=baseline.digest if baseline is not None and defence.needs_baseline else None,
        run=run,
    )
    return Hardened(
        stored=stored,
        training=training,
        data=subject.data(),
        records=tuple(records),
        notes=subject.notes,
    )
