"""Models: clean accuracy and what belongs to it."""

from typing import Any

from purpleteam.core.records import Measurement
from purpleteam.core.schema import MODEL_NOTES
from purpleteam.report import view
from purpleteam.report.blocks import checks, matrices, trainings
from purpleteam.report.chapter import CHAPTERS, Chapter, Sheet, beside, of_model, of_seed
from purpleteam.report.collect import UNDEFENDED, Evidence, about
from purpleteam.report.numbers import SPACE, heading, number_or_dash

SCORES = ("precision", "recall", "f1")
METRICS = ("clean_accuracy", "validation_accuracy")


def _time(evidence: Evidence, record: Measurement) -> view.Inline:
    """Return the time for an image in a unit that fits it."""
    spent = record.cost.get("seconds_per_image")
    if spent is None:
        return view.DASH
    if spent < 1e-3:
        text = f"{1e6 * spent:.0f}{SPACE}µs"
    elif spent < 1:
        text = f"{1e3 * spent:.2f}{SPACE}ms"
    else:
        text = f"{spent:.1f}{SPACE}s"
    return view.Number(text=text, value=float(spent), records=(record.id,))


def _stands_for_it(evidence: Evidence, record: Measurement) -> bool:
    """Say whether a measurement stands for its model: clean accuracy, where that was measured."""
    clean = about(evidence.find("clean_accuracy"), record)
    return not record.how.get("repair") and (record.name == "clean_accuracy" or clean is None)


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
        classes: dict[str, dict[str, Measurement]] = {}
        for record in records:
            label = str(record.how.get("class", "all"))
            classes.setdefault(label, {}).setdefault(record.name, record)
        rows = [
            view.row(label, *(number_or_dash(scores.get(score)) for score in SCORES))
            for label, scores in classes.items()
        ]
        seeds = [f", seed {one.seed}" for one in records if one.seed is not None]
        which = seeds[0] if seeds and names.count(name) > 1 else ""
        caption, columns = f"Each class, {name}{which}", ("Class", *map(heading, SCORES))
        link = (view.RecordLink(records[0].id),)
        tables.append(view.Table(caption, columns, rows, folded=True, note=link, dense=True))
    return (
        [view.Prose(("Precision, recall and F1 of each class",), "heading"), tables]
        if tables
        else ()
    )


CHAPTERS.register("models")(
    Chapter(
        title="Models",
        lead="How well each model does when nobody attacks it.",
        metrics=(*METRICS, "loss", "calibration_error", "confusion_matrix", *SCORES),
        parts=(
            Sheet(
                caption="Clean metrics of each model",
                metrics=METRICS,
                where=_stands_for_it,
                columns={
                    "Model": of_model,
                    "Seed": of_seed,
                    **beside("clean_accuracy"),
                    **beside("loss"),
                    **beside("calibration_error"),
                    **beside("validation_accuracy"),
                    "Time per image": _time,
                },
                optional=(
                    *("Seed", "Loss", "Calibration error", "Validation accuracy"),
                    "Time per image",
                ),
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
        means_not="None of it says anything about an adversary: the most accurate of these models "
        "can be the first to fall. Times are of this machine and include no data loading.",
        notes=(MODEL_NOTES,),
        checks=("model", "models"),
        stage="models",
        gap="Clean accuracy: no model was evaluated on unchanged images",
        try_="purple evaluate --model {model} --dataset {dataset}",
        after="data",
    )
)
