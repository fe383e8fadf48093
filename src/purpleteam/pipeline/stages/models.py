"""Stage models: train the model at hand (or bring it), evaluate it, and the one that is served."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from purpleteam import verbs
from purpleteam.core.errors import ModelError
from purpleteam.core.records import Measurement, Note, Record
from purpleteam.core.schema import MODEL_NOTES
from purpleteam.core.statistics import Rate
from purpleteam.data.drawing import CASES, FIELD, EmptyDrawing, RedrawCase, place, redraw
from purpleteam.data.images import ImageSet
from purpleteam.models.inference import correct
from purpleteam.models.loading import LoadedModel, load
from purpleteam.models.recipes import RECIPES, Recipe
from purpleteam.pipeline.state import Piece, Run
from purpleteam.verbs.trained import part

BASELINE = "baseline"  # what the trained model at hand is called; a brought one keeps its own name


def train_models(run: Run) -> None:
    """Train or bring the model at hand, and evaluate it."""
    model = baseline(run)
    if run.brought is not None:
        run.plays("models", model, "brought")
    evaluated(run, "models", model)
    if model.notes:  # what was seen of a brought model on the way
        facts = {"model_name": model.name, "model": model.digest, "notes": list(model.notes)}
        run.cell("models", "notes", facts, lambda: [Note(name=MODEL_NOTES, facts=facts)])


def read_served(run: Run) -> Iterator[Piece]:
    """Evaluate the served model, on test images and on digits that are drawn again."""
    model = served(run, "models", "The served model on these images")
    if model is None:
        return
    if model.digest != baseline(run).digest:
        yield Piece(f"evaluate {model.name}", partial(evaluated, run, "models", model))
    if not run.config.models.redrawn:
        return
    if run.subject().shape != (1, FIELD, FIELD):
        why = f"drawings become {FIELD}x{FIELD} grey pixels, and these images are others"
        run.left_out("models", "Images drawn again", why)
        return
    for case in CASES:
        yield Piece(f"redrawn {case.name}", partial(_redrawn, run, model, case))


def baseline(run: Run) -> LoadedModel:
    """Return the model at hand: the brought one, else an undefended one that is trained."""
    asked = run.config.models
    return run.brought or run.trained("models", BASELINE, recipe_of(asked.recipe, asked.epochs))


def recipe_of(name: str, epochs: int | None) -> Recipe:
    """Return a training recipe, with another number of epochs where asked."""
    return part(RECIPES, name, "recipe", epochs=epochs)


def evaluated(run: Run, stage: str, model: LoadedModel, seed: int | None = None) -> list[Record]:
    """Evaluate a model on the whole test split, as one cell."""

    def look() -> list[Record]:
        doing = run.doing | {"seed": run.config.seed}
        result = verbs.evaluate(model, run.dataset, split="test", **doing)
        measured = [record for record in result.records if isinstance(record, Measurement)]
        return [replace(record, seed=seed) for record in measured]

    return run.cell(stage, f"evaluate {model.name}", {"model": model.digest, "seed": seed}, look)


def served(run: Run, stage: str, what: str) -> LoadedModel | None:
    """Return the served model, if any; leave `what` out where it does not fit this dataset."""
    if run.config.models.served is None:
        return None
    model = load(run.config.models.served, device=run.device)
    try:
        model.check_fits(run.subject().shape, len(run.dataset.classes), run.dataset.name)
    except ModelError as error:
        run.left_out(stage, what, str(error))
        return None
    run.plays(stage, model, "served")
    return model


def _redrawn(run: Run, model: LoadedModel, case: RedrawCase) -> None:
    """Redraw test digits on a canvas and read them: placed as the app does, and just resized."""
    limit = min(run.config.models.redrawn, len(run.dataset.test))
    test, seed = run.dataset.test.first(limit), run.config.seed
    subject = run.subject(model, limit=limit).about()

    def look() -> list[Record]:
        canvases = list(redrawn(run, test, case))
        facts = {"case": case.name, "size": case.size, "offset": case.offset}
        rates: list[Record] = []
        for way, shrink in {"place": placed, "resize": resized}.items():
            small = np.stack([shrink(canvas) for canvas in canvases])[..., None]
            right = int(correct(model.module, ImageSet(small, test.labels)).sum())
            rates.append(
                Measurement(
                    name="redrawn_accuracy",
                    value=Rate.of(right, len(test)),
                    subject=subject,
                    how=facts | {"preprocessing": way},
                    seed=seed,
                )
            )
        return rates

    depends_on = {"model": model.digest, "case": asdict(case), "limit": limit, "seed": seed}
    run.cell("models", f"redrawn {case.name}", depends_on, look)


def redrawn(run: Run, test: ImageSet, case: RedrawCase) -> Iterator[NDArray[np.uint8]]:
    """Yield each digit as it is drawn on a canvas."""
    offsets = case.offsets(len(test), seed=run.config.seed)
    with run.progress.task(f"redraw: {case.name}", len(test)) as task:
        for digit, (x, y) in zip(test.images, offsets, strict=True):
            yield redraw(digit[:, :, 0], size=case.size, offset_x=int(x), offset_y=int(y))
            task.advance(1)


def placed(canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a drawing as the app sends it; one without ink is black."""
    try:
        return place(canvas)
    except EmptyDrawing:
        return np.zeros((FIELD, FIELD), np.uint8)


def resized(canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the whole canvas shrunk, wherever the digit is: what many apps do."""
    side = canvas.shape[0] // FIELD
    means = canvas.reshape(FIELD, side, FIELD, side).mean((1, 3))
    return np.asarray(np.rint(means), np.uint8)
