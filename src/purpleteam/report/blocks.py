"""Blocks that several chapters share: checks, galleries, confusion matrices, trainings, facts."""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from purpleteam.core.records import Measurement, Note
from purpleteam.core.schema import TRAINING, Role
from purpleteam.core.statistics import Counts
from purpleteam.report import view
from purpleteam.report.chapter import Part
from purpleteam.report.collect import Evidence, items, model_name
from purpleteam.report.figures import Bar, Series, bars, curves, heatmap
from purpleteam.report.numbers import LISTED, grouped, number_of, of_fraction, plain
from purpleteam.report.png import png_size

TONES = {
    **{"critical": "bad", "high": "bad", "medium": "warn"},
    **{"mitigated": "good", "partly": "warn", "open": "bad", "verified": "good", "failed": "bad"},
    **{"pass": "good", "fail": "bad", "error": "bad", "broken": "bad", "stale": "warn"},
    **{"sound": "good", "weak": "warn", "not_established": "bad"},
}
LARGEST_PICTURE = 400_000
"""Bytes; a larger PNG is named and not shown, so that the page stays light."""


def badge(word: str) -> view.Span:
    """Return a severity, a status or a verdict in its colour."""
    return view.Badge(word.replace("_", " "), TONES.get(word, "quiet"))


def checks(caption: str, *rooms: str) -> Part:
    """Return a part that shows the checks of those rooms, those that did not pass first."""

    def table(evidence: Evidence) -> view.Table:
        results = evidence.checks(*rooms)
        results.sort(key=lambda record: (record.verdict == "pass", record.check))
        rows = []
        for check in results:
            seen: list[view.Inline] = [check.proves]
            if check.measured is not None:
                seen += ["\n", view.Mono(brief(check.measured))]
            if check.threshold is not None:
                seen += [" against ", view.Mono(brief(check.threshold))]
            seen += [f"\n{check.message}"] if check.message else []
            shown = check.negative_control.get("failed_as_required", False)
            can_fail = view.Badge("shown", "good") if shown else view.Badge("not shown", "warn")
            cells = ((view.Mono(check.check), view.RecordLink(check.id)), badge(check.verdict))
            rows.append(view.row(*cells, tuple(seen), can_fail, record=check.id))
        columns = ("Check", "Verdict", "What a pass proves, and what was measured", "Can fail")
        return view.Table(caption, columns, rows, stacked=True)

    return table


def galleries(*kinds: str) -> Callable[[Evidence], list[view.Gallery]]:
    """Return a part that shows the galleries of those kinds, their pictures inside the page."""
    return lambda evidence: [
        view.Gallery(
            title=str(note.facts.get("title", "Pictures")),
            pictures=tuple(_picture(evidence.root, image) for image in items(note.facts, "images")),
            record=note.id,
            kind=str(note.facts.get("kind", "")),
            note=str(note.facts.get("note", "")),
        )
        for note in evidence.galleries(*kinds)
    ]


def _picture(root: Path, image: Mapping[str, Any]) -> view.Picture:
    path, caption = str(image.get("path", "")), str(image.get("caption", ""))
    content = b""
    for candidate in (root / path, root / "images" / path):  # nothing outside is ever read
        if candidate.resolve().is_relative_to(root.resolve()) and candidate.is_file():
            content = candidate.read_bytes()
            break
    size = png_size(content)
    if size is None or len(content) > LARGEST_PICTURE:
        return view.Picture(path, caption)
    scale = max(1, 96 // max(size))
    uri = f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
    return view.Picture(path, caption, uri, size[0] * scale, size[1] * scale)


def colour_of(evidence: Evidence, model: str) -> int:
    """Return the model's colour, the same in every figure."""
    return evidence.models.index(model) % 8 if model in evidence.models else 0


def bars_figure(
    title: str, about: str, groups: Sequence[tuple[str, Sequence[Bar]]], caption: view.Cell
) -> view.Figure:
    """Return labelled groups of bars, with their numbers as a table."""
    named = [(label, *bar) for label, group in groups for bar in group]
    rows = [view.row(label, name or view.DASH, number) for label, number, _, name in named]
    table = view.Table(title, ("Of", "Which", "Value"), rows)
    return view.Figure(title, bars(title, about, groups), caption, table)


def matrices(*roles: Role, key: str = "", lab: bool | None = None) -> Part:
    """Return a part that shows, folded, the confusion matrices of models that play those parts.

    With `key`, `attack` or `trigger`, those with that in `how`; else those on clean images.
    """

    def wanted(record: Measurement) -> bool:
        under = record.how.get("attack") or record.how.get("trigger")
        return bool(record.how.get(key) if key else not under)

    return lambda evidence: [
        (_matrix if len(record.value.value) <= LISTED else _mistakes)(record, record.value)
        for name in evidence.models_of(*roles, lab=lab)
        for record in evidence.find("confusion_matrix", name)
        if wanted(record) and isinstance(record.value, Counts)
    ]


def _matrix(record: Measurement, value: Counts) -> view.Figure:
    title, classes = _titled(record, value, "confusion matrix")
    about = "Rows are true classes, columns predicted ones; the diagonal is right."
    rows = [
        view.row(f"true {name}", *map(grouped, counts))
        for name, counts in zip(classes, value.value, strict=False)
    ]
    said = " images; darker: a larger share of the row. "
    caption = (number_of(record), said, view.RecordLink(record.id))
    svg = heatmap(title, about, value.value, classes, record.id)
    table = view.Table(title, ("", *classes), rows, dense=True)
    return view.Figure(title, svg, caption, table, folded=True, record=record.id)


def _mistakes(record: Measurement, value: Counts) -> view.Table:
    """Return the most frequent mistakes: what is read of a matrix too large to look at."""
    title, classes = _titled(record, value, "most frequent mistakes")
    wrong = [
        (count, true, read)
        for true, counts in enumerate(value.value)
        for read, count in enumerate(counts)
        if count and true != read
    ]
    wrong.sort(key=lambda mistake: (-mistake[0], mistake[1:]))
    rows = [
        view.row(classes[true], classes[read], view.Given(grouped(count), record.id))
        for count, true, read in wrong[:LISTED]
    ]
    said = f" images; the first {len(rows)} of {grouped(len(wrong))} pairs of classes. "
    note = (number_of(record), said, view.RecordLink(record.id))
    return view.Table(title, ("True", "Read as", "Images"), rows, note=note, folded=True)


def _titled(record: Measurement, value: Counts, what: str) -> tuple[str, list[str]]:
    """Return the title of what is shown of a confusion matrix, and the names of its classes."""
    classes = [str(name) for name in record.detail.get("classes") or range(len(value.value))]
    seed = "" if record.seed is None else f", seed {record.seed}"
    under = " on triggered images" if record.how.get("trigger") else ""
    under = f" under {record.how['attack']}" if record.how.get("attack") else under
    title = f"{model_name(record) or 'Model'}{seed}: {what}{under}"
    return title, classes[: len(value.value)]


CURVES = {
    "training loss": ("loss",),
    "validation accuracy": ("validation_accuracy", "attacked", "certified"),
}
"""What is drawn of the epochs of a training, and the fields of each figure's curves."""


def trainings(title: str, *roles: Role, lab: bool | None = None) -> Part:
    """Return a part: loss and validation accuracies over the epochs of those models, folded."""

    def figures(evidence: Evidence) -> Iterator[view.Figure]:
        models, every = evidence.models_of(*roles, lab=lab), evidence.notes(TRAINING)
        notes = [note for note in every if note.facts.get("model_name") in models]
        for measure, keys in CURVES.items():
            known = [_series(evidence, note, key) for note in notes for key in keys]
            if series := [curve for curve in known if curve.points]:
                yield _training(title, series, notes, measure)

    return figures


def _series(evidence: Evidence, note: Note, key: str) -> Series:
    model, seed = str(note.facts.get("model_name", "")), note.facts.get("seed")
    points: dict[float, view.Number] = {}
    for place, epoch in enumerate(items(note.facts, "epochs"), 1):
        value = epoch.get(key)
        value = value.get("value") if isinstance(value, Mapping) else value
        if isinstance(value, int | float) and not isinstance(value, bool):
            name = key if key == "loss" else "validation_accuracy"
            points[float(epoch.get("epoch", place))] = of_fraction(float(value), name, note.id)
    names = [other.facts.get("model_name") for other in evidence.notes(TRAINING)]
    label = f"{model} {seed}" if names.count(model) > 1 and seed is not None else model
    place = CURVES["validation accuracy"].index(key) if key != "loss" else 0
    label += f", {key}" if place else ""
    recipe = note.facts.get("recipe")
    if key == "loss" and isinstance(recipe, Mapping) and "privacy" in recipe:
        label += ", of validation images"  # that of the private ones is not told
    return Series(label=label, points=points, colour=(colour_of(evidence, model) + 3 * place) % 8)


def _training(
    title: str, series: Sequence[Series], notes: Sequence[Note], measure: str
) -> view.Figure:
    title, share = f"{title}: {measure}", measure.endswith("accuracy")
    words = measure.removeprefix("training ")
    lowest = min(number.value for curve in series for number in curve.points.values())
    # The small differences near the top are the news: an accuracy's scale need not start at zero.
    floor = next((floor for floor in (0.96, 0.9, 0.8, 0.6) if floor <= lowest), 0.0)
    svg = curves(
        title,
        f"{words} after each epoch",
        series,
        x_label="epoch",
        y_label=words,
        over=(floor, 1.0) if share else None,
        percent=share,
        height=230,
    )
    rows = [
        view.row(f"{epoch:g}", *(curve.points.get(epoch, view.DASH) for curve in series))
        for epoch in sorted({epoch for curve in series for epoch in curve.points})
    ]
    table = view.Table(title, ("Epoch", *(curve.label for curve in series)), rows, dense=True)
    links = (part for note in notes for part in (view.RecordLink(note.id), " "))
    caption: view.Cell = ("As recorded; an accuracy's scale need not start at zero. ", *links)
    return view.Figure(title, svg, caption, table, folded=True)


def brief(value: Any, limit: int = 240) -> str:
    """Return any JSON in few characters."""
    if isinstance(value, Mapping):
        text = ", ".join(f"{key} {brief(item)}" for key, item in value.items())
    elif isinstance(value, list | tuple):
        text = ", ".join(map(brief, value))
    elif isinstance(value, int | float):
        text = plain(value)
    else:
        text = str(value)
        text = text[:19] + "…" if text.startswith("sha256:") else text  # the record has all of it
    return text if len(text) <= limit else text[: limit - 1] + "…"
