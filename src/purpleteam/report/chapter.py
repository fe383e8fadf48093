"""A chapter is a declaration: which records it is about, which tables and figures it makes.

A new chapter is one file that registers itself, here or in a plug-in: docs/plugins.md has one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from purpleteam.core.records import Finding, Measurement, ThreatStatus
from purpleteam.core.registry import Registry
from purpleteam.core.schema import Role
from purpleteam.report import view
from purpleteam.report.collect import Evidence, about, done, model_name
from purpleteam.report.numbers import heading, number_of, number_or_dash, of_epsilon, plain

Column = Callable[[Evidence, Measurement], view.Inline | view.Cell]
"""What a column shows of the measurement in its row."""
Part = Callable[[Evidence], view.Blocks]
"""A Sheet, or a function that returns blocks: none where it has nothing to show."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table that is declared: which measurements, one a row, and what its columns show."""

    caption: str
    metrics: tuple[str, ...]
    columns: Mapping[str, Column]
    where: Callable[[Evidence, Measurement], bool] = lambda *_: True
    """Which of those measurements."""
    order: Callable[[Measurement], Any] = lambda _: 0
    """How those of one model follow each other; by default as they were recorded."""
    folded: bool = False
    most: int | None = None
    """Rows; where there are more, they are folded."""
    dense: bool = False
    note: view.Cell = ()
    optional: tuple[str, ...] = ()
    """Columns that go where every row has a dash."""

    def __call__(self, evidence: Evidence) -> view.Table:
        """Return the table, of no rows where nothing of it was measured."""
        records = [record for name in self.metrics for record in evidence.find(name)]
        records = [record for record in records if self.where(evidence, record)]
        records.sort(key=self.order)
        place = {name: number for number, name in enumerate(evidence.models)}
        records.sort(key=lambda record: place.get(model_name(record), -1))
        columns = {}
        for name, show in self.columns.items():
            cells = [show(evidence, record) for record in records]
            blank = all(cell in (view.DASH, (view.DASH,)) for cell in cells)
            if not (blank and name.rstrip(" ↑↓") in self.optional):
                columns[name] = cells
        lines = zip(records, *columns.values(), strict=True)
        rows = [view.row(*cells, record=record.id) for record, *cells in lines]
        folded = self.folded or len(rows) > (self.most or len(rows))
        return view.Table(self.caption, tuple(columns), rows, folded, self.note, self.dense)


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """One chapter of the report.

    It is told where one of its records is there, or where work of its stage failed. Where it is
    not, `gap` says what that leaves open, in the list of what was not tested.
    """

    title: str
    lead: str
    parts: tuple[Part, ...]
    """In the order of the page."""
    means: str = ""
    """What the numbers mean, and in `means_not` what they do not mean."""
    means_not: str = ""
    metrics: tuple[str, ...] = ()
    roles: tuple[Role, ...] = ()
    """Where given: only measurements about models that play one of these parts count."""
    lab: bool | None = None
    """Where given: only measurements of the poison lab count, or only others."""
    notes: tuple[str, ...] = ()
    kinds: tuple[type[Finding] | type[ThreatStatus], ...] = ()
    checks: tuple[str, ...] = ()
    """Rooms whose checks it shows, as their ids begin."""
    galleries: tuple[str, ...] = ()
    stage: str = ""
    gap: str = ""
    try_: str = ""
    """The command that fills the gap; `{model}` and `{dataset}` stand for those of the run."""
    after: str = ""
    """The chapter that it follows."""

    def is_told(self, evidence: Evidence) -> bool:
        """Say whether there is anything to tell."""
        measured = [
            record
            for record in evidence.measurements
            if record.name in self.metrics
            and (not self.roles or evidence.role(model_name(record)) in self.roles)
            and self.lab in (None, bool(record.how.get("lab")))
        ]
        return bool(
            measured
            or evidence.notes(*self.notes)
            or any(evidence.of(kind) for kind in self.kinds)
            or evidence.checks(*self.checks)
            or evidence.galleries(*self.galleries)
            or evidence.failures(self.stage)
        )

    def section(self, id: str, evidence: Evidence) -> view.Section:
        """Return the chapter on that run; work of its stage that failed stands first."""
        failed = []
        for record in evidence.failures(self.stage):
            reason = f" {record.what}: {record.reason} "
            said = (view.Badge("failed", "bad"), reason, view.RecordLink(record.id))
            failed.append(view.Prose(said, "callout"))
        reading = view.Reading(self.means, self.means_not) if self.means else None
        blocks = view.flat(failed, *(part(evidence) for part in self.parts), reading)
        return view.Section(id, self.title, self.lead, tuple(blocks))


CHAPTERS: Registry[Chapter] = Registry("chapter")


def ordered() -> dict[str, Chapter]:
    """Return all chapters by name, each after the one that it follows.

    What follows the same chapter comes in order of length, so that a plug-in's one chapter does
    not wait for the end of the page.
    """
    following: dict[str, list[str]] = {}
    for name in CHAPTERS:
        after = CHAPTERS[name].after
        following.setdefault(after if after in CHAPTERS else "", []).append(name)

    def behind(name: str) -> list[str]:
        lines = [[after, *behind(after)] for after in following.get(name, [])]
        lines.sort(key=lambda line: (len(line), line))
        return [chapter for line in lines for chapter in line]

    return {name: CHAPTERS[name] for name in behind("")}


def of_model(evidence: Evidence, record: Measurement) -> view.Inline:
    """Show the name of the model."""
    return model_name(record) or view.DASH


def of_seed(evidence: Evidence, record: Measurement) -> view.Inline:
    """Show the seed."""
    return view.DASH if record.seed is None else view.Given(str(record.seed), record.id)


BY_TRAINING: dict[str, Column] = {"Model": of_model, "Seed": of_seed}
"""The columns that tell one training from another."""


def of_name(evidence: Evidence, record: Measurement) -> view.Inline:
    """Show what was measured."""
    return heading(record.name)


def of_itself(evidence: Evidence, record: Measurement) -> view.Inline:
    """Show the measured number."""
    return number_of(record)


def given(record: Measurement, key: str) -> view.Inline:
    """Return a parameter of how something was measured, or a dash where it has none."""
    value = record.how.get(key)
    if value is None:
        return view.DASH
    if key == "epsilon":
        return view.Given(of_epsilon(value), record.id)
    return view.Given(plain(value) if isinstance(value, int | float) else str(value), record.id)


def of_how(key: str) -> Column:
    """Return a column that shows a parameter of how something was measured."""
    return lambda _, record: given(record, key)


def number(name: str, **how: Any) -> Column:
    """Return a column that shows the metric `name` of the same model, done in that way."""

    def cell(evidence: Evidence, record: Measurement) -> view.Inline:
        same = record.name == name and done(record, how)
        return number_or_dash(record if same else about(evidence.find(name), record, **how))

    return cell


def beside(name: str, text: str = "", **how: Any) -> dict[str, Column]:
    """Return that column under the metric's own heading, or that of the text."""
    return {heading(name, text): number(name, **how)}


RAMPLESS = "Without the ramp"


def without_ramp(name: str, *alike: str) -> dict[str, Column]:
    """Return that metric of the same weights without their input ramp, where they have one.

    It was done in the same way, as far as these parameters say.
    """

    def cell(evidence: Evidence, record: Measurement) -> view.Inline:
        how = {key: record.how.get(key) for key in alike}
        return number_or_dash(about(evidence.find(f"{name}_without_ramp"), record, **how))

    return {heading(f"{name}_without_ramp", RAMPLESS): cell}
