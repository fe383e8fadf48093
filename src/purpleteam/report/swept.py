"""The table of a sweep, read line by line: its numbers by what was varied, however many there are.

Of a table of more than `RECORDS` lines the page holds the records of what it shows, and of more
than `GROUPS` different choices of one metric what each option alone does. The table has them all.
"""

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from purpleteam.core.schema import SWEEP_TABLE
from purpleteam.core.statistics import Estimate, Rate, Value, mean
from purpleteam.report.numbers import metric_of, of_value
from purpleteam.report.view import Number

RECORDS, GROUPS = 2000, 500
ENDS = ("metric", "class", "value", "low", "high", "n", "selection", "verdict", "record")
"""Columns that are no options."""
Key = tuple[str, ...]


def is_seed(name: str) -> bool:
    """Say whether numbers are averaged over an option: a cell's seed, or of a model's training."""
    return name.rpartition(".")[2] == "seed"


@dataclass(frozen=True)
class Line:
    """A number of a cell, and the words to say beside it."""

    value: float
    low: float
    high: float
    n: int
    flag: str
    established: bool
    record: str


@dataclass
class Group:
    """Numbers that are shown as one: the mean over seeds, or over whatever is not asked for."""

    metric: str
    values: list[float] = field(default_factory=list)
    first: Line | None = None
    lowest: Line | None = None
    highest: Line | None = None
    records: list[str] = field(default_factory=list)
    """Of all numbers, where the page holds all records; else of the lowest and the highest."""
    span: tuple[float, float] = (math.inf, -math.inf)
    flags: dict[str, None] = field(default_factory=dict)
    established: bool = True

    def add(self, line: Line, whole: bool) -> None:
        """Take a number in."""
        self.values.append(line.value)
        self.first = self.first or line
        self.flags |= dict.fromkeys(filter(None, [line.flag]))
        self.established &= line.established
        self.span = min(self.span[0], line.low), max(self.span[1], line.high)
        self.lowest = min(self.lowest or line, line, key=lambda one: one.value)
        self.highest = max(self.highest or line, line, key=lambda one: one.value)
        ends = [self.lowest.record, self.highest.record]
        self.records = [*self.records, line.record] if whole else list(dict.fromkeys(ends))

    def merged(self, other: "Group") -> "Group":
        """Return both as one."""
        lines = [one for group in (self, other) for one in (group.lowest, group.highest) if one]
        return Group(
            self.metric,
            self.values + other.values,
            self.first,
            min(lines, key=lambda one: one.value),
            max(lines, key=lambda one: one.value),
            list(dict.fromkeys(self.records + other.records)),
            (min(self.span[0], other.span[0]), max(self.span[1], other.span[1])),
            self.flags | other.flags,
            self.established and other.established,
        )

    @property
    def are_shares(self) -> bool:
        """Whether all numbers lie within 0 and 1, with their intervals."""
        return self.span[0] >= 0 and self.span[1] <= 1

    @property
    def number(self) -> Number:
        """The mean with its t interval; where all are alike, one with the interval of its sample.

        The sample of one then tells more than their spread.
        """
        if self.first is None:
            raise ValueError("a group without numbers has no mean")
        value = _value(self.metric, self.first)
        if max(self.values) - min(self.values) > 1e-9 * max(1.0, *map(abs, self.values)):
            bounds = (0.0, 1.0) if self.are_shares else (-math.inf, math.inf)
            value = mean(self.values, bounds=bounds)
        return replace(
            of_value(value, self.metric, self.first.record),
            records=tuple(self.records),
            flag="; ".join(self.flags),
            established=self.established,
        )

    @property
    def spread(self) -> tuple[Number, Number, Number]:
        """The mean over different things, which has no interval, the lowest and the highest."""
        if self.lowest is None or self.highest is None:
            raise ValueError("a group without numbers has no mean")
        ends = [of_value(_value(self.metric, one), self.metric, one.record)
                for one in (self.lowest, self.highest)]  # fmt: skip
        middle = sum(self.values) / len(self.values)
        value = Estimate(value=middle, n=len(self.values), low=middle, high=middle, method="")
        number = of_value(value, self.metric, self.lowest.record)
        plain = replace(number, interval="", ends=None, records=tuple(self.records))
        return plain, ends[0], ends[1]


def _value(metric: str, line: Line) -> Value:
    cases = line.value * line.n
    if metric_of(metric).unit == "fraction" and abs(cases - round(cases)) < 1e-6:
        return Rate(value=line.value, n=line.n, low=line.low, high=line.high)
    return Estimate(value=line.value, n=line.n, low=line.low, high=line.high, method="")


@dataclass
class Metric:
    """The numbers of one metric, by the options of which there are several values."""

    name: str
    values: dict[str, dict[str, None]]
    """By option its values, in the order of the table."""
    many: bool
    """More choices than a table shows: only single options and the main two are grouped."""
    views: dict[Key, dict[Key, Group]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The options that were varied, without seeds."""
        return [name for name in self.values if not is_seed(name)]

    @property
    def main(self) -> list[str]:
        """The options, those first of which there are most values."""
        return sorted(self.names, key=lambda name: -len(self.values[name]))

    @property
    def count(self) -> int:
        """How many numbers there are."""
        return sum(len(group.values) for group in next(iter(self.views.values())).values())

    def by(self, *names: str) -> dict[Key, Group]:
        """Return a group for each choice of those options."""
        if names in self.views:
            return self.views[names]
        whole = self.views[tuple(self.names)]
        places = [self.names.index(name) for name in names]
        found: dict[Key, Group] = {}
        for key, group in whole.items():
            part = tuple(key[place] for place in places)
            found[part] = found[part].merged(group) if part in found else group
        return found

    @property
    def shown(self) -> set[str]:
        """The records that the page opens."""
        groups = (group for view in self.views.values() for group in view.values())
        return {record for group in groups for record in group.records}


@dataclass(frozen=True)
class Swept:
    """What the table of a sweep holds."""

    lines: int
    metrics: Mapping[str, Metric]

    @property
    def whole(self) -> bool:
        """Whether the page holds all records."""
        return self.lines <= RECORDS

    @property
    def shown(self) -> set[str]:
        """The records that the page opens where it does not hold all."""
        return {record for metric in self.metrics.values() for record in metric.shown}


def read_table(root: Path) -> Swept:
    """Return the numbers of a sweep's table; none where the folder has none.

    Numbers of single classes are left out. What an older file of the sweep asked for is in the
    records, and not in the table.
    """
    path = root / SWEEP_TABLE
    if not path.is_file():
        return Swept(0, {})
    lines, values, choices = 0, dict[str, dict[str, dict[str, None]]](), dict[str, set[int]]()
    for row in _rows(path):
        lines += 1
        if row.get("class"):
            continue
        mine = values.setdefault(row.get("metric", ""), {})
        options = {name: text for name, text in row.items() if name not in ENDS}
        for name, text in options.items():
            mine.setdefault(name, {})[text] = None
        choice = tuple(text for name, text in options.items() if not is_seed(name))
        choices.setdefault(row.get("metric", ""), set()).add(hash(choice))
    most = GROUPS // max(1, len(values))
    metrics = {}
    for metric, by_name in values.items():
        several = {name: found for name, found in by_name.items() if len(found) > 1}
        metrics[metric] = made = Metric(metric, several, len(choices[metric]) > most)
        wanted: list[Key] = [tuple(made.names)]
        if made.many:
            few = [name for name in made.main if len(several[name]) <= most]
            pairs = ((a, b) for a in few for b in few if a != b)
            fits = (pair for pair in pairs if len(several[pair[0]]) * len(several[pair[1]]) <= most)
            wanted = [(), *((name,) for name in few), *(next(([p] for p in fits), []))]
        made.views = {names: {} for names in wanted}
    for row in _rows(path):
        if not row.get("class") and (line := _line(row)):
            for names, groups in metrics[row["metric"]].views.items():
                key = tuple(row[name] for name in names)
                group = groups.setdefault(key, Group(row["metric"]))
                group.add(line, whole=lines <= RECORDS)
    return Swept(lines, {name: made for name, made in metrics.items() if made.count})


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _line(row: Mapping[str, str]) -> Line | None:
    """Return the number of a line; None where it tells none."""
    try:
        value, n = float(row["value"]), int(float(row["n"] or 0))
        low, high = float(row["low"] or value), float(row["high"] or math.inf)
    except (KeyError, ValueError, TypeError):
        return None
    selection, verdict = row.get("selection", ""), row.get("verdict", "")
    flags = [f"{selection}: no random sample"] if selection.startswith("first") else []
    flags += ["weak evaluation"] if verdict == "weak" else []
    sound = verdict != "not_established"
    return Line(value, low, high, n, "; ".join(flags), sound, row.get("record", ""))
