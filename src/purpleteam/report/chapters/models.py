"""Models: clean accuracy and what belongs to it."""

from __future__ import annotations

from collections.abc import Sequence

from purpleteam.core.records import Measurement
from purpleteam.report.blocks import checks_block, matrices
from purpleteam.report.collect import Evidence, team
from purpleteam.report.numbers import number_or_dash, seconds, short_digest
from purpleteam.report.published import with_published
from purpleteam.report.training import training
from purpleteam.report.view import (
    DASH,
    Block,
    Chapter,
    Given,
    Heading,
    Inline,
    Missing,
    Mono,
    Prose,
    Reading,
    RecordLink,
    Row,
    Table,
    row,
)

MEANS = (
    "Clean accuracy is the share of unchanged test images that a model reads rightly. Calibration "
    "error says how far its stated confidence is from how often it is right."
)
MEANS_NOT = (
    "None of it says anything about an adversary: the most accurate of these models can be the "
    "first to fall. Times are of this machine and include no data loading."
)
SCORES = ("precision", "recall", "f1")
METRICS = ("clean_accuracy", "loss", "calibration_error", "validation_accuracy")


def chapter(evidence: Evidence) -> Chapter:
    """Return the chapter."""
    names = evidence.models_with(*METRICS)
    blocks: list[Block] = []
    if names:
        blocks.append(_table(evidence, names))
    else:
        blocks.append(Missing("No model was evaluated on clean images."))
    blocks += [
        Prose((Given(f"Of {note.facts['model_name']}: {one}.", note.id),), "callout")
        for note in evidence.notes("model-notes")
        for one in note.facts["notes"]
    ]
    blocks += clean_matrices(evidence, [name for name in names if team(name) == "plain"])
    tables = [
        _per_class(evidence, name, seed, found)
        for name in evidence.models_with(*SCORES)
        for seed, found in evidence.editions(name, *SCORES)
    ]
    blocks += [Heading("Precision, recall and F1 of each class"), *tables] if tables else []
    plain = [name for name in evidence.models if team(name) == "plain"]
    blocks += training(evidence, plain, "Training")
    blocks.append(
        checks_block(
            evidence.checks("model", "models"),
            "Checks of the model files",
            "No check of a model file was run.",
        )
    )
    blocks.append(Reading(MEANS, MEANS_NOT))
    lead = "How well each model does when nobody attacks it."
    return Chapter(id="models", title="Models", lead=lead, blocks=tuple(blocks))


def _table(evidence: Evidence, names: Sequence[str]) -> Table:
    columns = (
        "Model",
        "Clean accuracy",
        "Loss",
        "Calibration error",
        "Validation accuracy",
        "Time per image",
    )
    return Table(
        caption="Clean metrics of each model",
        columns=columns,
        rows=tuple(_rows(evidence, names)),
    )


def _rows(evidence: Evidence, names: Sequence[str]) -> list[Row]:
    return [
        _row(evidence, name, found, seed)
        for name in names
        for seed, found in evidence.editions(name, *METRICS)
    ]


def _row(evidence: Evidence, name: str, found: Sequence[Measurement], seed: int | None) -> Row:
    ordered = sorted(found, key=lambda one: one.subject.get("split") == "test")
    best = {one.name: one for one in ordered}  # the last one of a name stays
    shown = "" if seed is None else Given(f", seed {seed}", found[0].id)
    clean = best.get("clean_accuracy")
    return row(
        (name, shown, Mono(short_digest(found[0].subject.get("model", "")))),
        with_published(evidence, clean),
        with_published(evidence, best.get("loss")),
        number_or_dash(best.get("calibration_error")),
        number_or_dash(best.get("validation_accuracy")),
        _time(clean),
    )


def _time(measurement: Measurement | None) -> Inline:
    spent = measurement.cost.get("seconds_per_image") if measurement is not None else None
    return DASH if measurement is None or spent is None else seconds(float(spent), measurement.id)


def clean_matrices(evidence: Evidence, names: Sequence[str]) -> list[Block]:
    """Return the models' confusion matrices on clean images, the first one open."""
    found = [
        one
        for name in names
        for one in evidence.find("confusion_matrix", name)
        if not one.how.get("attack") and not one.how.get("trigger")
    ]
    return matrices(found, first_open=True)


def _per_class(
    evidence: Evidence, name: str, seed: int | None, found: Sequence[Measurement]
) -> Table:
    classes: dict[str, dict[str, Measurement]] = {}
    for one in found:
        classes.setdefault(str(one.how.get("class", "all")), {}).setdefault(one.name, one)
    rows = tuple(
        row(label, *(with_published(evidence, scores.get(score)) for score in SCORES))
        for label, scores in classes.items()
    )
    return Table(
        caption=f"Each class, {name}" + ("" if seed is None else f", seed {seed}"),
        columns=("Class", "Precision", "Recall", "F1"),
        rows=rows,
        folded=True,
        dense=True,
        note=(
            "Right among the images called a class, found among those that are one, and both in "
            "one number: ",
            RecordLink(found[0].id),
        ),
    )
