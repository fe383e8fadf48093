"""train: a classifier of your own, from a dataset."""

from __future__ import annotations

from typing import Annotated, Any

from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.runfolder import RunFolder
from purpleteam.verbs.options import Arch, Budget, Device, Epochs, Images, Out, Seed, Threads
from purpleteam.verbs.trained import Trained, described, recipe_from, seconds_of, train_and_store
from purpleteam.verbs.verb import Option, verb


@verb()
def train(
    images: Images = "digits",
    labels: Any = None,
    *,
    arch: Arch = "classic_cnn",
    recipe: Annotated[
        Any, Option(help="Recipe NAME[:field=value,...]; see purple ls.")
    ] = "accurate",
    epochs: Epochs = None,
    budget: Budget = None,
    out: Out = None,
    seed: Seed = 0,
    threads: Threads = None,
    device: Device = "auto",
    name: str | None = None,
    run: RunFolder | None = None,
    progress: Progress = SILENT,
) -> Trained:
    """Train a classifier and store it: weights, ONNX and card.

    Stopped, it goes on after its last whole epoch when the same command is typed again.
    """
    from purpleteam.models.recipes import RECIPES
    from purpleteam.models.training import train as fit
    from purpleteam.verbs._subject import open_subject
    from purpleteam.verbs.outputs import stem_to_write

    called, plan = recipe_from(RECIPES, recipe, epochs)
    seconds = seconds_of(budget)
    subject = open_subject(
        images, labels, device=device, threads=threads, training=True, progress=progress
    )
    dataset = subject.dataset
    subject.net(arch, seed)  # what cannot be built is refused before anything is written
    stem = stem_to_write(out, f"{dataset.name}-{called}")
    stored, training, records = train_and_store(
        subject,
        stem,
        arch,
        described(called, plan),
        lambda net, checkpoint: fit(
            net,
            dataset.train,
            dataset.validation,
            plan,
            seed=seed,
            checkpoint=checkpoint,
            device=subject.device,
            description=f"train {name or stem.name}",
            progress=progress,
            budget_seconds=seconds,
        ),
        seed=seed,
        role="baseline",
        name=name,
        run=run,
    )
    return Trained(
        stored=stored,
        training=training,
        data=subject.data(),
        records=tuple(records),
        notes=subject.notes,
    )
