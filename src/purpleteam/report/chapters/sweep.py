"""A sweep: each metric over what was varied, as curves, as a map and as a table."""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from purpleteam.core.records import Measurement
from purpleteam.core.schema import SWEEP_TABLE
from purpleteam.core.statistics import Counts, mean
from purpleteam.report.chapter import CHAPTERS, Chapter
from purpleteam.report.collect import Evidence
from purpleteam.report.figures import Series, curves, heat
from purpleteam.report.numbers import heading, number_of, of_epsilon, of_value
from purpleteam.report.view import DASH, Figure, Number, Table, row

SEED = "seed"
FIRST = ("epsilon", "limit")
"""What is on a figure's x-axis, the first that was varied; else another number."""
MANY, LINES = 40, 12
"""A longer table is folded; of more lines no figure is drawn."""


@dataclass(frozen=True)
class Point:
    """A measurement of a cell, and what of the cell's options was varied in the sweep."""

    at: Mapping[str, Any]
    record: Measurement


def points_of(evidence: Evidence) -> dict[str, list[Point]]:
    """Return the measurements of the table's cells by metric, those of single classes left out.

    What an older file of the sweep asked for is in the records, and not in the table.
    """
    by_id = {record.id: record for record in evidence.measurements}
    current = _in_table(evidence)
    calls = [note.facts for note in evidence.notes("asked")] if current else []
    found: dict[str, list[Point]] = {}
    for call in calls:
        options = {key: _plain(value) for key, value in dict(call.get("options", {})).items()}
        for record in filter(None, map(by_id.get, call.get("records", ()))):
            counted = isinstance(record.value, Counts) or "class" in record.how
            if record.id in current and not counted:
                found.setdefault(record.name, []).append(Point(options, record))
    return {name: _varied(points) for name, points in found.items()}


def _in_table(evidence: Evidence) -> set[str]:
    path = evidence.root / SWEEP_TABLE
    if "sweep" not in evidence.asked or not path.is_file():
        return set()
    with path.open(encoding="utf-8", newline="") as file:
        return {row["record"] for row in csv.DictReader(file) if "record" in row}


def _plain(value: Any) -> Any:
    """Return the one item of a list; several as text."""
    if not isinstance(value, list | tuple):
        return value
    return value[0] if len(value) == 1 else ", ".join(map(str, value))


def _varied(points: list[Point]) -> list[Point]:
    """Return points with only those options of which there are several values."""
    names = {name for point in points for name in point.at}
    several = {n for n in names if len({str(point.at.get(n)) for point in points}) > 1}
    return [
        replace(point, at={name: point.at.get(name) for name in sorted(several)})
        for point in points
    ]


def _groups(points: Sequence[Point], *without: str) -> dict[tuple[tuple[str, str], ...], Number]:
    """Return a number for each choice of the other options: a mean where several were measured."""
    grouped: dict[tuple[tuple[str, str], ...], list[Measurement]] = {}
    for point in points:
        key = tuple((n, _said(n, v)) for n, v in point.at.items() if n not in without)
        grouped.setdefault(key, []).append(point.record)
    return {key: _mean(records) for key, records in grouped.items()}


def _said(name: str, value: Any) -> str:
    return of_epsilon(value) if name == "epsilon" else DASH if value is None else str(value)


def _mean(records: Sequence[Measurement]) -> Number:
    """Return the mean of measurements with its t interval; one alone as it is."""
    numbers = [number_of(record) for record in records]
    number, values = numbers[0], [one.value for one in numbers]
    if max(values) - min(values) > 1e-9 * max(1.0, *map(abs, values)):
        bounds = (0.0, 1.0) if _are_shares(numbers) else (-math.inf, math.inf)
        number = of_value(mean(values, bounds=bounds), records[0].name, records[0].id)
    # where all are alike, the sample of one tells more than their spread
    return replace(
        number,
        records=tuple(record.id for record in records),
        flag="; ".join(dict.fromkeys(one.flag for one in numbers if one.flag)),
        established=all(one.established for one in numbers),
    )


def _are_shares(numbers: Iterable[Number]) -> bool:
    return all(0 <= end <= 1 for number in numbers for end in number.span)


def _axis(points: Sequence[Point]) -> str:
    """Return which option is on the x-axis: a number of which there are several; empty if none."""
    numbers = [
        name
        for name in points[0].at
        if name != SEED and all(isinstance(p.at[name], int | float) for p in points)
    ]
    return next((name for name in (*FIRST, *numbers) if name in numbers), "")


def _curves(evidence: Evidence) -> Iterator[Figure]:
    for metric, points in points_of(evidence).items():
        axis = _axis(points)
        lines: dict[str, dict[float, Number]] = {}
        for x in sorted({float(point.at[axis]) for point in points} if axis else ()):
            here = [point for point in points if float(point.at[axis]) == x]
            for key, number in _groups(here, SEED, axis).items():
                label = ", ".join(value for _, value in key) or metric.replace("_", " ")
                lines.setdefault(label, {})[x] = number
        if not lines or len(lines) > LINES:
            continue
        series = [
            Series(label=label, points=line, colour=place % 8)
            for place, (label, line) in enumerate(lines.items())
        ]
        title = f"{heading(metric)} over {axis}"
        y_label = metric.replace("_", " ")
        about = f"One line for each choice of the rest: the mean over seeds of {y_label}."
        shares = all(_are_shares(line.values()) for line in lines.values())
        over = (0.0, 1.0) if shares else None
        svg = curves(title, about, series, x_label=axis, y_label=y_label, over=over, percent=shares)
        said = "Bands are 95 % intervals: over seeds where there are several, else of the sample."
        yield Figure(title, svg, (said,))


def _maps(evidence: Evidence) -> Iterator[Figure]:
    """A square for each pair of the two options of which there are most values."""
    for metric, points in points_of(evidence).items():
        names = [name for name in points[0].at if name != SEED]
        names.sort(key=lambda name: -len({str(point.at[name]) for point in points}))
        if len(names) < 2:
            continue
        down, across = sorted(names[:2], key=lambda name: name == _axis(points))
        rest = set(names[2:])
        found = {dict(key)[down] + "\0" + dict(key)[across]: number
                 for key, number in _groups(points, SEED, *rest).items()}  # fmt: skip
        rows = list(dict.fromkeys(_said(down, point.at[down]) for point in points))
        columns = list(dict.fromkeys(_said(across, point.at[across]) for point in points))
        cells = [[found.get(f"{r}\0{c}") for c in columns] for r in rows]
        title = f"{heading(metric)} by {down} and {across}"
        over = f" and over {', '.join(sorted(rest))}" if rest else ""
        about = f"One square for each pair; the mean over seeds{over}."
        table = Table(title, (down, *columns), [
            row(name, *(number or DASH for number in line))
            for name, line in zip(rows, cells, strict=True)
        ], folded=True)  # fmt: skip
        yield Figure(title, heat(title, about, rows, columns, cells), (about,), table)


def _tables(evidence: Evidence) -> Iterator[Table]:
    for metric, points in points_of(evidence).items():
        groups = _groups(points, SEED)
        names = [name for name in points[0].at if name != SEED]
        rows = [row(*(value for _, value in key), number) for key, number in groups.items()]
        title = f"{heading(metric)}, mean over seeds"
        yield Table(title, (*names, heading(metric)), rows, folded=len(rows) > MANY, dense=True)


class SweepChapter(Chapter):
    """Told where the run is a sweep."""

    def is_told(self, evidence: Evidence) -> bool:
        return "sweep" in evidence.asked


CHAPTER = SweepChapter(
    title="Sweep",
    lead="The product of what was asked for: every cell is one call of a verb.",
    parts=(_curves, _maps, _tables),
    means="A number is the mean of its cells over seeds, with a t interval; where all are alike, "
    "or there is one, it is with the interval of the sample.",
    means_not="Cells share their images, so two curves differ less by chance than their bands "
    "say; and of many cells the best one is best partly by chance.",
    stage="sweep",
    after="data",
)
CHAPTERS.register("sweep")(CHAPTER)
