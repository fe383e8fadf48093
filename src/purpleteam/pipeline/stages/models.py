"""Stage models: train the baseline (or bring one), evaluate it, and the model that is served."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import ModelError
from purpleteam.core.records import Measurement, Note, Record
from purpleteam.core.statistics import Rate
from purpleteam.data.drawing import FIELD, EmptyDrawing, place
from purpleteam.data.images import ImageSet
from purpleteam.data.redraw import CASES, RedrawCase, redraw
from purpleteam.models.evaluation import evaluate
from purpleteam.models.inference import correct
from purpleteam.models.loading import LoadedModel, load
from purpleteam.models.recipes import RECIPES, Recipe
from purpleteam.models.training import train
from purpleteam.pipeline.importing import load_for
from purpleteam.pipeline.work import Piece, Work

__all__ = [
    "BASELINE",
    "baseline",
    "evaluated",
    "placed",
    "read_served",
    "recipe_of",
    "served",
    "train_models",
]

BASELINE = "baseline"


def train_models(work: Work) -> None:
    """Train or bring the baseline, and evaluate it."""
    model = baseline(work)
    if work.config.models.use is not None:
        work.plays("models", model, BASELINE, "brought")
    evaluated(work, "models", model, BASELINE)
    if model.notes:  # what was seen of a brought model on the way
        facts = {"model_name": BASELINE, "model": model.digest, "notes": list(model.notes)}
        work.cell("models", "notes", facts, lambda: [Note(name="model-notes", facts=facts)])


def read_served(work: Work) -> Iterator[Piece]:
    """Evaluate the served model, on test images and on digits that are drawn again."""
    shipped = served(work, "models", "The served model on these images")
    if shipped is None:
        return
    yield Piece(
        f"evaluate {shipped.name}", partial(evaluated, work, "models", shipped, shipped.name)
    )
    if not work.config.models.redrawn:
        return
    if work.shape != (1, FIELD, FIELD):
        why = f"drawings become {FIELD}x{FIELD} grey pixels, and these images are others"
        work.left_out("models", "Images drawn again", why)
        return
    for case in CASES:
        yield Piece(f"redrawn {case.name}", partial(_redrawn, work, shipped, case))


def baseline(work: Work) -> LoadedModel:
    """Return the undefended model under test."""
    asked = work.config.models
    if asked.use is not None:
        if BASELINE not in work.models:
            work.models[BASELINE] = load_for(
                work.dataset,
                asked.use,
                weights=Path(asked.weights) if asked.weights else None,
                device=work.device,
                arch=asked.arch,
                normalise=asked.normalise,
                classes=asked.classes,
            )
        return work.models[BASELINE]
    if BASELINE in work.models:
        return work.models[BASELINE]
    recipe = recipe_of(asked.recipe, asked.epochs)
    images = work.train
    return work.trained(
        "models",
        BASELINE,
        role="baseline",
        seed=work.config.seed,
        recipe={"name": asked.recipe, **asdict(recipe)},
        data_digest=images.digest,
        make=lambda net, checkpoint: train(
            net,
            images,
            work.dataset.validation,
            recipe,
            seed=work.config.seed,
            checkpoint=checkpoint,
            device=work.device,
            description="train baseline",
            progress=work.progress,
        ),
    )


def recipe_of(name: str, epochs: int | None) -> Recipe:
    """Return a recipe by name, with another number of epochs where asked."""
    recipe = RECIPES[name]()
    return recipe if epochs is None else replace(recipe, epochs=epochs)


def evaluated(
    work: Work, stage: str, model: LoadedModel, name: str, seed: int | None = None
) -> list[Record]:
    """Evaluate a model on the whole test split, as one cell."""

    def look() -> list[Record]:
        found = evaluate(
            model.module,
            work.dataset.test,
            classes=len(work.dataset.classes),
            seed=work.config.seed,
        )
        return [replace(one, seed=seed) for one in found.measurements(work.subject(model, name))]

    return work.cell(stage, f"evaluate {name}", {"model": model.digest, "seed": seed}, look)


def served(work: Work, stage: str, what: str) -> LoadedModel | None:
    """Return the model that the app serves; leave `what` out where it does not fit this dataset."""
    model = load(work.config.models.served, device=work.device)
    try:
        model.check_fits(work.shape, len(work.dataset.classes), work.dataset.name)
    except ModelError as error:
        work.left_out(stage, what, str(error))
        return None
    work.plays(stage, model, model.name, "served")
    return model


def _redrawn(work: Work, model: LoadedModel, case: RedrawCase) -> None:
    """Redraw test digits on a canvas and read them: placed as the app does, and just resized."""
    limit = min(work.config.models.redrawn, len(work.dataset.test))
    test = work.dataset.test.first(limit)
    subject = work.subject(model, model.name, limit=limit)

    def look() -> list[Record]:
        ways: dict[str, list[NDArray[np.uint8]]] = {"place": [], "resize": []}
        offsets = case.offsets(len(test), seed=work.config.seed)
        with work.progress.task(f"redraw: {case.name}", len(test)) as task:
            for digit, (x, y) in zip(test.images[:, :, :, 0], offsets, strict=True):
                canvas = redraw(digit, size=case.size, offset_x=int(x), offset_y=int(y))
                ways["place"].append(placed(canvas))
                ways["resize"].append(_resized(canvas))
                task.advance(1)
        return [
            Measurement(
                name="redrawn_accuracy",
                value=Rate.of(int(correct(model.module, _set(images, test)).sum()), len(test)),
                subject=subject,
                how={
                    "case": case.name,
                    "size": case.size,
                    "offset": case.offset,
                    "preprocessing": way,
                },
                seed=work.config.seed,
            )
            for way, images in ways.items()
        ]

    depends_on = {
        "model": model.digest,
        "case": asdict(case),
        "limit": limit,
        "seed": work.config.seed,
    }
    work.cell("models", f"redrawn {case.name}", depends_on, look)


def placed(canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a drawing as the app sends it; one without ink is black."""
    try:
        return place(canvas)
    except EmptyDrawing:
        return np.zeros((28, 28), np.uint8)


def _resized(canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What both seeds did: shrink the whole canvas, wherever the digit is."""
    side = canvas.shape[0] // 28
    means = canvas.reshape(28, side, 28, side).mean((1, 3))
    return np.asarray(np.rint(means), np.uint8)


def _set(images: Sequence[NDArray[np.uint8]], test: ImageSet) -> ImageSet:
    return ImageSet(np.stack(images)[..., None], test.labels)
