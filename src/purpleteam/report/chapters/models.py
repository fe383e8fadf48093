"""Models: clean accuracy and what belongs to it."""

from __future__ import annotations

from collections.abc import Sequence

from purpleteam.core.records import Measurement
from purpleteam.core.schema import MODEL_NOTES
from purpleteam.report.blocks import checks, matrices, trainings
from purpleteam.report.chapter import CHAPTERS, Chapter, Sheet, beside, of_model, of_seed
from purpleteam.report.collect import UNDEFENDED, Evidence, about
from purpleteam.report.numbers import heading, number_or_dash, seconds
from purpleteam.report.view import (
    DASH,
    Block,
    Given,
    Heading,
    Inline,
    Prose,
    RecordLink,
    Table,
    row,
)

SCORES = ("precision", "recall", "f1")
METRICS = ("clean_accuracy", "validation_accuracy")


def _time(evidence: Evidence, record: Measurement) -> Inline:
    spent = record.cost.get("seconds_per_image")
    return DASH if spent is None else seconds(float(spent), record.id)


def _first_of_model(evidence: Evidence, record: Measurement) -> bool:
    """Say whether a measurement stands for its model in the table: clean accuracy, if there."""
    if record.how.get("repair"):
        return False
    return record.name == "clean_accuracy" or about(evidence.find("clean_accuracy"), record) is None


def _notes(evidence: Evidence) -> list[Block]:
    return [
        Prose((Given(f"Of {note.facts['model_name']}: {record}.", note.id),), "callout")
        for note in evidence.notes(MODEL_NOTES)
        for record in note.facts["notes"]
    ]


def _per_class(evidence: Evidence) -> list[Block]:
    tables: list[Block] = [
        _classes(name, seed, records)
        for name in evidence.models_with(*SCORES)
        for seed, records in evidence.editions(name, *SCORES)
    ]
    return [Heading("Precision, recall and F1 of each class"), *tables] if tables else []


def _classes(name: str, seed: int | None, records: Sequence[Measurement]) -> Table:
    classes: dict[str, dict[str, Measurement]] = {}
    for record in records:
        classes.setdefault(str(record.how.get("class", "all")), {}).setdefault(record.name, record)
    rows = tuple(
        row(label, *(number_or_dash(scores.get(score)) for score in SCORES))
        for label, scores in classes.items()
    )
    return Table(
        caption=f"Each class, {name}" + ("" if seed is None else f", seed {seed}"),
        columns=("Class", *map(heading, SCORES)),
        rows=rows,
        folded=True,
        dense=True,
        note=(RecordLink(records[0].id),),
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
                where=_first_of_model,
                columns={
                    "Model": of_model,
                    "Seed": of_seed,
                    heading("clean_accuracy"): beside("clean_accuracy"),
                    heading("loss"): beside("loss"),
                    heading("calibration_error"): beside("calibration_error"),
                    heading("validation_accuracy"): beside("validation_accuracy"),
                    "Time per image": _time,
                },
                optional=(
                    "Seed",
                    heading("loss"),
                    heading("calibration_error"),
                    heading("validation_accuracy"),
                    "Time per image",
                ),
            ),
            _notes,
            lambda evidence: matrices(evidence, *UNDEFENDED),
            _per_class,
            lambda evidence: trainings(evidence, "Training", *UNDEFENDED),
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
