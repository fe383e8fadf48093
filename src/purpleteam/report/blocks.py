"""Blocks that several chapters share: checks, galleries, confusion matrices, trainings, facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from purpleteam.core.records import CheckResult, Measurement, Note
from purpleteam.core.schema import TRAINING, Role
from purpleteam.core.statistics import Counts
from purpleteam.report.chapter import Part
from purpleteam.report.collect import Evidence, items, model_name, value_of
from purpleteam.report.figures import Bar, Point, Series, bars, curves, heatmap
from purpleteam.report.numbers import grouped, number_of, of_fraction, plain
from purpleteam.report.png import data_uri, png_size
from purpleteam.report.view import (
    DASH,
    Badge,
    Block,
    Cell,
    Figure,
    Gallery,
    Inline,
    Mono,
    Picture,
    RecordLink,
    Table,
    row,
)

TONES = {"pass": "good", "fail": "bad", "error": "bad", "broken": "bad", "stale": "warn"}
LARGEST_PICTURE = 400_000
"""Bytes; a larger PNG is named and not shown, so that the page stays light."""


def checks(caption: str, *rooms: str) -> Part:
    """Return a part that shows the checks of those rooms, what did not pass first."""

    def table(evidence: Evidence) -> list[Block]:
        results = evidence.checks(*rooms)
        return [checks_table(results, caption)] if results else []

    return table


def checks_table(results: Sequence[CheckResult], caption: str) -> Table:
    """Return a table of executed checks."""
    ordered = sorted(results, key=lambda record: (record.verdict == "pass", record.check))
    columns = ("Check", "Verdict", "What a pass proves, and what was measured", "Can fail")
    return Table(
        caption=caption,
        columns=columns,
        rows=tuple(
            row(
                (Mono(record.check), RecordLink(record.id)),
                Badge(record.verdict, TONES.get(record.verdict, "quiet")),
                _seen(record),
                Badge("shown", "good")
                if record.negative_control.get("failed_as_required", False)
                else Badge("not shown", "warn"),
                record=record.id,
            )
            for record in ordered
        ),
        stacked=True,
    )


def _seen(check: CheckResult) -> Cell:
    seen: list[Inline] = [check.proves]
    if check.measured is not None:
        seen += ["\n", Mono(brief(check.measured))]
    if check.threshold is not None:
        seen += [" against ", Mono(brief(check.threshold))]
    return (*seen, f"\n{check.message}") if check.message else tuple(seen)


def galleries(*kinds: str) -> Part:
    """Return a part that shows the galleries of those kinds."""
    return lambda evidence: gallery_blocks(evidence, *kinds)


def gallery_blocks(evidence: Evidence, *kinds: str) -> list[Gallery]:
    """Return the galleries of those kinds with their pictures inside the page."""
    return [
        Gallery(
            title=str(note.facts.get("title", "Pictures")),
            pictures=tuple(
                _picture(evidence.root, record) for record in items(note.facts, "images")
            ),
            record=note.id,
            kind=str(note.facts.get("kind", "")),
            note=str(note.facts.get("note", "")),
        )
        for note in evidence.galleries(*kinds)
    ]


def _picture(root: Path, image: Mapping[str, Any]) -> Picture:
    path, caption = str(image.get("path", "")), str(image.get("caption", ""))
    content = b""
    for candidate in (root / path, root / "images" / path):  # nothing outside is ever read
        if candidate.resolve().is_relative_to(root.resolve()) and candidate.is_file():
            content = candidate.read_bytes()
            break
    size = png_size(content)
    if size is None or len(content) > LARGEST_PICTURE:
        return Picture(uri="", path=path, caption=caption, width=0, height=0)
    scale = max(1, 96 // max(size))
    return Picture(
        uri=data_uri(content, "image/png"),
        path=path,
        caption=caption,
        width=size[0] * scale,
        height=size[1] * scale,
    )


def colour_of(evidence: Evidence, model: str) -> int:
    """Return the model's colour, the same in every figure."""
    return evidence.models.index(model) % 8 if model in evidence.models else 0


def bar_of(measurement: Measurement, style: str, name: str) -> Bar:
    """Return a rate as a bar with its interval."""
    shown, value = number_of(measurement), measurement.value
    return Bar(
        value=shown.value,
        low=getattr(value, "low", shown.value),
        high=getattr(value, "high", shown.value),
        text=shown.text,
        record=measurement.id,
        style=style,
        name=name,
    )


def bars_figure(
    title: str,
    description: str,
    groups: Sequence[tuple[str, Sequence[tuple[Measurement, str, str]]]],
    caption: Cell,
) -> Figure:
    """Return groups of bars and the same as a table.

    Args:
        title: of the figure.
        description: for those who cannot see it.
        groups: a label, and of each bar its measurement, style and name.
        caption: what the colours mean.
    """
    drawn = [(label, [bar_of(*bar) for bar in group]) for label, group in groups]
    rows = tuple(
        row(label, name or DASH, number_of(record))
        for label, group in groups
        for record, _, name in group
    )
    table = Table(caption=title, columns=("Of", "Which", "Value"), rows=rows, folded=True)
    return Figure(title=title, svg=bars(title, description, drawn), caption=caption, table=table)


def matrices(
    evidence: Evidence, *roles: Role, key: str = "", lab: bool | None = None
) -> list[Block]:
    """Return, folded, the confusion matrices of models that play those parts.

    Args:
        evidence: the run.
        *roles: the parts.
        key: `attack` or `trigger`: those with that in `how`; else those on clean images.
        lab: of the poison lab or not, where asked.
    """
    names = evidence.models_of(*roles, lab=lab)
    records = [record for name in names for record in evidence.find("confusion_matrix", name)]
    wanted = [
        record
        for record in records
        if (
            record.how.get(key)
            if key
            else not (record.how.get("attack") or record.how.get("trigger"))
        )
    ]
    return [figure for record in wanted if (figure := _matrix(record)) is not None]


def _matrix(record: Measurement) -> Figure | None:
    value = record.value
    if not isinstance(value, Counts):
        return None
    classes = [str(name) for name in record.detail.get("classes") or range(len(value.value))]
    classes = classes[: len(value.value)]
    seed = "" if record.seed is None else f", seed {record.seed}"
    under = " on triggered images" if record.how.get("trigger") else ""
    under = f" under {record.how['attack']}" if record.how.get("attack") else under
    title = f"{model_name(record) or 'Model'}{seed}: confusion matrix{under}"
    about = "Rows are true classes, columns predicted ones; the diagonal is right."
    rows = tuple(
        row(f"true {name}", *(grouped(cell) for cell in counts))
        for name, counts in zip(classes, value.value, strict=False)
    )
    caption = (
        number_of(record),
        " images; darker: a larger share of the row. ",
        RecordLink(record.id),
    )
    return Figure(
        title=title,
        svg=heatmap(title, about, value.value, classes, record.id),
        caption=caption,
        table=Table(caption=title, columns=("", *classes), rows=rows, folded=True, dense=True),
        folded=True,
        record=record.id,
    )


def trainings(evidence: Evidence, title: str, *roles: Role, lab: bool | None = None) -> list[Block]:
    """Return, folded, loss and validation accuracy over the epochs of those models."""
    models = evidence.models_of(*roles, lab=lab)
    notes = [
        record for record in evidence.notes(TRAINING) if record.facts.get("model_name") in models
    ]
    blocks: list[Block] = []
    for key, label in (("loss", "training loss"), ("validation_accuracy", "validation accuracy")):
        series = [record for note in notes if (record := _series(evidence, note, key)).points]
        if series:
            blocks.append(_training_figure(f"{title}: {label}", series, notes, key))
    return blocks


def _series(evidence: Evidence, note: Note, key: str) -> Series:
    model = str(note.facts.get("model_name", ""))
    points = []
    for place, epoch in enumerate(items(note.facts, "epochs"), 1):
        value = epoch.get(key)
        value = value.get("value") if isinstance(value, Mapping) else value
        if isinstance(value, int | float) and not isinstance(value, bool):
            x, y = float(epoch.get("epoch", place)), float(value)
            points.append(Point(x=x, y=y, low=y, high=y, record=note.id))
    several = (
        sum(record.facts.get("model_name") == model for record in evidence.notes(TRAINING)) > 1
    )
    seed = f" {note.facts['seed']}" if several and note.facts.get("seed") is not None else ""
    return Series(label=model + seed, points=tuple(points), colour=colour_of(evidence, model))


def _training_figure(
    title: str, series: Sequence[Series], notes: Sequence[Note], key: str
) -> Figure:
    share, words = key.endswith("accuracy"), key.replace("_", " ")
    lowest = min(point.y for record in series for point in record.points)
    # The small differences near the top are the news: an accuracy's scale need not start at zero.
    floor = next((floor for floor in (0.96, 0.9, 0.8, 0.6) if floor <= lowest), 0.0)
    svg = curves(
        title,
        f"{words} after each epoch",
        series,
        x_label="epoch",
        y_label=words,
        scale=(floor, 1.0) if share else None,
        percent=share,
        height=230,
    )
    epochs = sorted({point.x for record in series for point in record.points})
    values = [{point.x: point for point in record.points} for record in series]
    rows = tuple(
        row(
            f"{epoch:g}",
            *(
                of_fraction(points[epoch].y, key, points[epoch].record) if epoch in points else DASH
                for points in values
            ),
        )
        for epoch in epochs
    )
    columns = ("Epoch", *(record.label for record in series))
    table = Table(caption=title, columns=columns, rows=rows, folded=True, dense=True)
    links = (part for note in notes for part in (RecordLink(note.id), " "))
    caption: Cell = ("As recorded; an accuracy's scale need not start at zero. ", *links)
    return Figure(title=title, svg=svg, caption=caption, table=table, folded=True)


def point_of(epsilon: float, record: Measurement) -> Point:
    """Return a measurement as a point of a curve, with its interval."""
    middle = value_of(record)
    low, high = getattr(record.value, "low", middle), getattr(record.value, "high", middle)
    return Point(x=epsilon, y=middle, low=low, high=high, record=record.id)


def facts_table(note: Note, caption: str) -> Table:
    """Return a note's facts one below the other, all of them traced to the note."""
    rows = tuple(
        row(key.replace("_", " "), _fact(value), record=note.id)
        for key, value in note.facts.items()
        if not str(value).startswith("sha256:")
    )
    columns = ("Fact", "As recorded")
    return Table(caption=caption, columns=columns, rows=rows, note=(RecordLink(note.id),))


def _fact(value: Any) -> Inline:
    if isinstance(value, str):
        return value
    return Mono(brief(value)) if value or value == 0 else "none"


def brief(value: Any, limit: int = 240) -> str:
    """Return any JSON in few characters."""
    if isinstance(value, Mapping):
        text = ", ".join(f"{key} {brief(item)}" for key, item in value.items())
    elif isinstance(value, list | tuple):
        text = ", ".join(brief(item) for item in value)
    elif isinstance(value, int | float):
        text = plain(value)
    else:
        text = str(value)
        text = text[:19] + "…" if text.startswith("sha256:") else text  # the record has all of it
    return text if len(text) <= limit else text[: limit - 1] + "…"
