"""Models: clean accuracy and what belongs to it."""

import math
from typing import Any

from purpleteam.core.records import Measurement
from purpleteam.core.schema import MODEL_NOTES
from purpleteam.report import view
from purpleteam.report.blocks import checks, matrices, trainings
from purpleteam.report.chapter import (
    BY_TRAINING,
    CHAPTERS,
    RAMPLESS,
    Chapter,
    Sheet,
    beside,
    without_ramp,
)
from purpleteam.report.collect import UNDEFENDED, Evidence, about
from purpleteam.report.numbers import SPACE, heading, number_of

SCORES = ("precision", "recall", "f1")
METRICS = ("clean_accuracy", "validation_accuracy")
TIMES = ((1e-3, 1e6, 0, "µs"), (1.0, 1e3, 2, "ms"), (math.inf, 1.0, 1, "s"))
"""Of times below a bound in seconds: the factor, the decimals and the unit."""
OPTIONAL = ("Seed", "Loss", "Calibration error", "Validation accuracy", "Time per image")


def _time(evidence: Evidence, record: Measurement) -> view.Inline:
    """Return the time for an image in a unit that fits it."""
    spent = record.cost.get("seconds_per_image")
    if spent is None:
        return view.DASH
    _, scale, places, unit = next(time for time in TIMES if spent < time[0])
    text = f"{scale * spent:.{places}f}{SPACE}{unit}"
    return view.Number(text=text, value=float(spent), records=(record.id,))


def _stands_for_it(evidence: Evidence, record: Measurement) -> bool:
    """Say whether a measurement stands for its model: clean accuracy, where that was measured."""
    if record.how.get("repair"):
        return False
    if record.name == "clean_accuracy":
        return True
    return about(evidence.find("clean_accuracy"), record) is None


def _notes(evidence: Evidence) -> list[view.Prose]:
    return [
        view.Prose((view.Given(f"Of {note.facts['model_name']}: {seen}.", note.id),), "callout")
        for note in evidence.notes(MODEL_NOTES)
        for seen in note.facts["notes"]
    ]


def _per_class(evidence: Evidence) -> view.Blocks:
    """Return the scores of each class; several trainings of one recipe are several models."""
    trained: dict[tuple[str, Any], list[Measurement]] = {}
    for name in evidence.models_with(*SCORES):
        for record in (record for score in SCORES for record in evidence.find(score, name)):
            trained.setdefault((name, record.subject.get("model")), []).append(record)
    names, tables = [name for name, _ in trained], []
    for (name, _), records in trained.items():
        classes: dict[str, dict[str, view.Inline]] = {}
        for record in records:
            label = record.detail.get("class_name", record.how.get("class", "all"))
            scores = classes.setdefault(str(label), {})
            scores.setdefault(heading(record.name), number_of(record))
        lines = ({"Class": label, **scores} for label, scores in classes.items())
        columns, rows = view.grid(lines, ("Class", *map(heading, SCORES)))
        seeds = [f", seed {record.seed}" for record in records if record.seed is not None]
        which = seeds[0] if seeds and names.count(name) > 1 else ""
        link = (view.RecordLink(records[0].id),)
        caption = f"Each class, {name}{which}"
        tables.append(view.Table(caption, columns, rows, folded=True, note=link, dense=True))
    title = view.Prose(("Precision, recall and F1 of each class",), "heading")
    return (title, tables) if tables else None


CHAPTER = Chapter(
    title="Models",
    lead="How well each model does when nobody attacks it.",
    metrics=(*METRICS, "loss", "calibration_error", "confusion_matrix", *SCORES),
    parts=(
        Sheet(
            caption="Clean metrics of each model",
            metrics=METRICS,
            where=_stands_for_it,
            columns={
                **BY_TRAINING,
                **beside("clean_accuracy"),
                **without_ramp("clean_accuracy"),
                **beside("loss"),
                **beside("calibration_error"),
                **beside("validation_accuracy"),
                "Time per image": _time,
            },
            optional=(*OPTIONAL, RAMPLESS),
        ),
        _notes,
        matrices(*UNDEFENDED),
        _per_class,
        trainings("Training", *UNDEFENDED),
        checks("Checks of the model files", "model", "models"),
    ),
    means="Clean accuracy is the fraction of unchanged test images that a model classifies "
    "correctly. Calibration error says how far its stated confidence is from how often it is "
    "right.",
    means_not="None of it says anything about an adversary: the most accurate of these models can "
    "be the first to fall. Times are of this machine and include no data loading.",
    notes=(MODEL_NOTES,),
    checks=("model", "models"),
    stage="models",
    gap="Clean accuracy: no model was evaluated on unchanged images",
    try_="purple evaluate --model {model} --dataset {dataset}",
    after="data",
)
CHAPTERS.register("models")(CHAPTER)
