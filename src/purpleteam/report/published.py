"""What the two seed reports published, to stand beside what was measured here.

A figure of the note `seeds-figures` is `{seed, what, value, where}`. It stands beside a measurement
where `what` is the measurement's name and `model_name`, `split` and every parameter that the
figure gives (`attack`, `epsilon`, ...) agree, on MNIST; one table lists all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from purpleteam.core.records import Measurement
from purpleteam.report.collect import Evidence, items, model_name
from purpleteam.report.numbers import number_of, of_fraction
from purpleteam.report.view import DASH, Cell, Inline, Number, Published, RecordLink, Table, row

NOTHING: Cell = (DASH,)
DATASET = "mnist"
"""What both reports are about: their figures stand beside no other images."""
OWN = ("seed", "what", "value", "where", "model_name", "note", "meaning", "how")
"""Keys of a figure that are no parameter of a measurement."""


def beside(evidence: Evidence, measurement: Measurement | None) -> Cell:
    """Return the seeds' figures for the same thing, each with the seed that published it."""
    if measurement is None:
        return NOTHING
    parts: list[Inline] = []
    for record, figure in _figures(evidence):
        if _same(figure, measurement):
            parts.append(Published(str(figure.get("seed", "?")), _value(figure, record)))
    return tuple(parts) or NOTHING


def with_published(evidence: Evidence, measurement: Measurement | None) -> Cell:
    """Return a measurement, and below it what a seed published for the same thing."""
    if measurement is None:
        return (DASH,)
    theirs = beside(evidence, measurement)
    ours: Cell = (number_of(measurement),)
    return ours if theirs == NOTHING else (*ours, *theirs)


def published_table(evidence: Evidence) -> Table | None:
    """Return every figure that the seeds published, with its place; None where none was noted."""
    figures = _figures(evidence)
    if not figures:
        return None
    rows = tuple(
        row(
            f"Seed {figure.get('seed', '?')}",
            _what(figure),
            _value(figure, record),
            str(figure.get("where", "")),
            str(figure.get("meaning", figure.get("note", ""))) or DASH,
            record=record,
        )
        for record, figure in figures
    )
    columns = ("Report", "What it calls it", "Published", "Where", "What it was")
    note = ("Published figures are theirs, not ours: ", RecordLink(figures[0][0]))
    return Table(
        caption="All figures of the two seed reports, on MNIST",
        columns=columns,
        rows=rows,
        folded=True,
        note=note,
    )


def _figures(evidence: Evidence) -> list[tuple[str, Mapping[str, Any]]]:
    return [
        (note.id, figure)
        for note in evidence.notes("seeds-figures")
        for figure in items(note.facts)
    ]


def _same(figure: Mapping[str, Any], measurement: Measurement) -> bool:
    if figure.get("what") != measurement.name or figure.get("model_name") != model_name(
        measurement
    ):
        return False
    how = figure.get("how")
    asked = {key: value for key, value in figure.items() if key not in OWN}
    asked |= dict(how) if isinstance(how, Mapping) else {}
    known = {**measurement.subject, **measurement.how}
    asked.setdefault("dataset_name", DATASET)
    return all(known.get(key) == value for key, value in asked.items())


def _what(figure: Mapping[str, Any]) -> str:
    name = str(figure.get("what", "")).replace("_", " ")
    extra = [f"{key} {value}" for key, value in figure.items() if key not in OWN]
    model = figure.get("model_name")
    return ", ".join([f"{name} of {model}" if model else name, *extra])


def _value(figure: Mapping[str, Any], record: str) -> Number | str:
    value = figure.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return of_fraction(value, str(figure.get("what", "")), record)
