"""train, evaluate, import, export: one classifier at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from purpleteam.cli.options import (
    Arch,
    Budget,
    Classes,
    Code,
    DatasetOption,
    Debug,
    Device,
    Epochs,
    Json,
    Limit,
    Model,
    Normalise,
    Out,
    Quiet,
    Seed,
    Split,
    Threads,
    Weights,
)
from purpleteam.cli.outputs import file_to_write, stem_to_write
from purpleteam.cli.screen import answer, percent, progress, table, write_answer
from purpleteam.core.errors import UsageError

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command()(train)
    app.command()(evaluate)
    app.command("import")(import_checkpoint)
    app.command()(export)


def train(
    dataset: DatasetOption = "digits",
    arch: Arch = "classic_cnn",
    recipe: Annotated[
        str, typer.Option("--recipe", help="Recipe NAME[:field=value,...]; see purple ls.")
    ] = "accurate",
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
    """Train a classifier and store it: weights, ONNX and card.

    Stopped, it goes on after its last whole epoch when the same command is typed again.
    """
    from purpleteam.cli.lab import Lab, checkpoint_of, recipe_from, seconds_of, trained_answer
    from purpleteam.models.recipes import RECIPES
    from purpleteam.models.training import train as fit

    plan = recipe_from(RECIPES, recipe, epochs)
    seconds = seconds_of(budget)
    lab = Lab.open(dataset, device=device, threads=threads, training=True)
    net = lab.net(arch, seed)
    stem = stem_to_write(out, f"{lab.dataset.name}-{plan[0]}")
    with progress(quiet or as_json) as bar:
        training = fit(
            net,
            lab.dataset.train,
            lab.dataset.validation,
            plan[1],
            seed=seed,
            checkpoint=checkpoint_of(stem),
            device=lab.device,
            progress=bar,
            budget_seconds=seconds,
        )
    stored = lab.store(training, stem, arch, {"name": plan[0]}, plan[1], seed)
    values, lines = trained_answer(stored, training)
    answer(values | lab.data(), [*lines, *lab.flags()], as_json=as_json)


def evaluate(
    model: Model = "standard",
    weights: Weights = None,
    arch: Code = None,
    normalise: Normalise = None,
    classes: Classes = None,
    dataset: DatasetOption = "digits",
    split: Split = None,
    limit: Limit = None,
    out: Out = None,
    seed: Seed = 0,
    threads: Threads = None,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Accuracy, loss, per-class scores, confusion matrix, calibration and time per image."""
    from purpleteam.cli.lab import Asked, Lab
    from purpleteam.models.evaluation import evaluate as look

    out = file_to_write(out)
    asked = Asked(weights, arch, normalise, classes)
    lab = Lab.open(dataset, device=device, threads=threads, model=asked)
    loaded = lab.load(model)
    split = lab.used(split, loaded)
    images = lab.dataset.split(split).first(limit)
    found = look(loaded.module, images, classes=len(lab.dataset.classes), seed=seed)
    subject, notes = lab.subject(loaded, split, limit), [*lab.notes, *loaded.notes]
    values = found.to_json() | {"subject": subject, "notes": notes} | lab.data(split)
    if out is not None:
        write_answer(out, values)
    rows: list[tuple[object, ...]] = [
        ("clean accuracy", found.clean_accuracy),
        ("loss", found.loss),
        ("calibration error", found.calibration_error),
        ("seconds per image", f"{found.seconds_per_image:.2e}"),
    ]
    lines = [*table(rows), "", *_matrix(values["confusion_matrix"], lab.dataset.classes)]
    lines += ["", *_per_class(values["per_class"], lab.dataset.classes)]
    lines += lab.flags(split, limit, loaded)
    answer(values, lines, as_json=as_json)


def import_checkpoint(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    arch: Arch = "classic_cnn",
    out: Out = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Takes image size and classes from it.")
    ] = None,
    shape: Annotated[
        str | None, typer.Option("--shape", help="Channels x height x width; 1x28x28 by default.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes",
            help="Their names in the order of the net's outputs (a,b,c or a file), or their "
            "number; 10 by default.",
        ),
    ] = None,
    normalise: Normalise = None,
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """A foreign checkpoint, judged without unpickling and made a stored model."""
    from purpleteam.models.adapters import Normalisation
    from purpleteam.models.devices import use_threads
    from purpleteam.pipeline.importing import import_model

    use_threads(threads)
    images = None
    if dataset is not None:
        from purpleteam.pipeline.importing import open_dataset

        images = open_dataset(dataset)
    stem = stem_to_write(out, file.stem)
    weights = stem.with_name(stem.name.removesuffix(".safetensors") + ".safetensors")
    if weights.resolve() == file.resolve():
        raise UsageError(f"the stored model would overwrite {str(file)!r}; name another --out")
    found = import_model(
        file,
        arch,
        stem,
        shape=_size(shape),
        classes=_classes(classes),
        dataset=images,
        normalisation=None if normalise is None else Normalisation.parse(normalise),
    )
    head = f"{found.verdict}: {found.model or file}"
    answer(found.to_json(), [head, *(f"- {reason}" for reason in found.reasons)], as_json=as_json)
    if found.verdict != "accepted":
        raise typer.Exit(1)


def export(
    model: Model = "standard",
    weights: Weights = None,
    arch: Code = None,
    normalise: Normalise = None,
    classes: Classes = None,
    dataset: DatasetOption = "digits",
    out: Out = None,
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a model as safetensors, ONNX and card, the two nets compared."""
    from purpleteam.cli.lab import Lab
    from purpleteam.models.adapters import Normalisation, parse_classes
    from purpleteam.models.black_box import BlackBox
    from purpleteam.models.devices import use_threads
    from purpleteam.models.loading import load
    from purpleteam.models.store import Provenance, store
    from purpleteam.pipeline.importing import read_weights

    if out is None:
        raise UsageError("--out FILE says where the model goes")
    use_threads(threads)
    layer = None if normalise is None else Normalisation.parse(normalise)
    names = None if classes is None else parse_classes(classes)
    loaded = load(model, weights=weights, arch=arch, read_weights=read_weights, normalisation=layer)
    if isinstance(loaded.module, BlackBox):
        raise UsageError(f"model {model!r} only gives answers: it has no weights to export")
    stem = stem_to_write(out, loaded.name.replace("/", "-").replace(":", "-"))
    if (card := loaded.card) is None:
        lab = Lab.open(dataset, device="cpu", threads=threads)
        provenance = Provenance(
            architecture=model,
            shape=lab.shape,
            classes=names or lab.dataset.classes,
            recipe={},
            converted_from=loaded.converted_from,
        )
    else:
        provenance = Provenance(
            architecture=arch or card.architecture,
            shape=card.shape,
            classes=names or card.classes,
            recipe=card.recipe,
            data_digest=card.data_digest,
            parent=card.parent,
            converted_from=card.converted_from,
            validation_accuracy=card.validation_accuracy,
        )
    stored = store(loaded.module, stem, provenance)
    values = {
        "model": str(stored.weights),
        "onnx": str(stored.onnx),
        "digest": stored.card.digest,
        "onnx_digest": stored.card.onnx_digest,
        "onnx_difference": stored.card.onnx_difference,
    }
    answer(values, table(list(values.items())), as_json=as_json)


def _classes(text: str | None) -> int | tuple[str, ...]:
    """Return the number of classes that is asked for, or their names."""
    from purpleteam.models.adapters import parse_classes

    if text is None or (text.isascii() and text.isdigit()):
        count = 10 if text is None else int(text[:6])
        if count < 2:
            raise UsageError(
                f"--classes '{count}' is no number of classes from 2 on, nor their names"
            )
        return count
    return parse_classes(text)


def _size(text: str | None) -> tuple[int, int, int]:
    if text is None:
        return 1, 28, 28
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) for part in parts):
        raise UsageError(f"--shape {text!r} is not channels x height x width, such as 1x28x28")
    return int(parts[0]), int(parts[1]), int(parts[2])


def _matrix(matrix: Any, classes: tuple[str, ...]) -> list[str]:
    if len(classes) > 20:
        return [f"confusion matrix of {len(classes)} classes: in --json"]
    rows = [
        ("true \\ read", *classes),
        *((c, *row) for c, row in zip(classes, matrix, strict=True)),
    ]
    return table(rows)


def _per_class(scores: Any, classes: tuple[str, ...]) -> list[str]:
    rows: list[tuple[str, ...]] = [("class", "precision", "recall", "F1")]
    for name, one in zip(classes, scores, strict=True):
        cells = [percent(one[key]) for key in ("precision", "recall", "f1")]
        rows.append((name, *cells))
    return table(rows)
