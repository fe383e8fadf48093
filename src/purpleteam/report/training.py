"""Training as it went: loss and validation accuracy over the epochs, from the training notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from purpleteam.core.records import Note
from purpleteam.report.blocks import colour_of
from purpleteam.report.collect import Evidence, items
from purpleteam.report.figures import Point, Series, curves
from purpleteam.report.numbers import of_fraction
from purpleteam.report.view import DASH, Block, Cell, Figure, Inline, RecordLink, Table, row


def training(evidence: Evidence, models: Sequence[str], title: str) -> list[Block]:
    """Return loss and validation accuracy over the epochs for those models."""
    notes = [
        note for note in evidence.notes("training") if str(note.facts.get("model_name")) in models
    ]
    blocks: list[Block] = []
    for key, label in (("loss", "training loss"), ("validation_accuracy", "validation accuracy")):
        series = [one for note in notes if (one := _series(evidence, note, key)).points]
        if series:
            blocks.append(_training_figure(f"{title}: {label}", series, notes, key))
    return blocks


def _series(evidence: Evidence, note: Note, key: str) -> Series:
    model = str(note.facts.get("model_name", ""))
    points = []
    for place, epoch in enumerate(items(note.facts, "epochs"), 1):
        value = _number(epoch.get(key))
        if value is not None:
            x = float(epoch.get("epoch", place))
            points.append(Point(x=x, y=value, low=value, high=value, record=note.id))
    several = sum(one.facts.get("model_name") == model for one in evidence.notes("training")) > 1
    seed = f" {note.facts['seed']}" if several and note.facts.get("seed") is not None else ""
    return Series(label=model + seed, points=tuple(points), colour=colour_of(evidence, model))


def _training_figure(
    title: str, series: Sequence[Series], notes: Sequence[Note], key: str
) -> Figure:
    share = key.endswith("accuracy")
    lowest = min(point.y for one in series for point in one.points)
    svg = curves(
        title,
        f"{key.replace('_', ' ')} after each epoch",
        series,
        x_label="epoch",
        y_label=key.replace("_", " "),
        scale=(_floor(lowest), 1.0) if share else None,
        percent=share,
        height=230,
    )
    epochs = sorted({point.x for one in series for point in one.points})
    cells = [_at(one, epochs, key) for one in series]
    rows = tuple(
        row(f"{epoch:g}", *(found[place] for found in cells)) for place, epoch in enumerate(epochs)
    )
    columns = ("Epoch", *(one.label for one in series))
    table = Table(caption=title, columns=columns, rows=rows, folded=True, dense=True)
    caption: Cell = (
        "As recorded during training; an accuracy's scale need not start at zero. ",
        *(part for note in notes for part in (RecordLink(note.id), " ")),
    )
    return Figure(
        title=title,
        svg=svg,
        caption=caption,
        table=table,
    )


def _floor(lowest: float) -> float:
    """Return where an accuracy's scale starts: the small differences near the top are the news."""
    return next((floor for floor in (0.96, 0.9, 0.8, 0.6) if floor <= lowest), 0.0)


def _at(one: Series, epochs: Sequence[float], key: str) -> list[Inline]:
    values = {point.x: point for point in one.points}
    cells: list[Inline] = []
    for epoch in epochs:
        point = values.get(epoch)
        cells.append(DASH if point is None else of_fraction(point.y, key, point.record))
    return cells


def _number(value: Any) -> float | None:
    if isinstance(value, Mapping):
        value = value.get("value")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
