"""A chapter is a declaration: which records it is about, which tables and figures it makes.

A new chapter is one file that registers itself, here or in a plug-in:

    CHAPTERS.register("depth")(
        Chapter(
            title="Depth",
            lead="How well the model judges depth.",
            metrics=("depth_accuracy",),
            parts=(Sheet(caption="Depth", metrics=("depth_accuracy",),
                         columns={"Model": of_model, "Accuracy": of_itself}),),
            after="models",
        )
    )
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from purpleteam.core.records import Failure, Finding, Measurement, ThreatStatus
from purpleteam.core.registry import Registry
from purpleteam.core.schema import Role
from purpleteam.report.collect import Evidence, about, model_name
from purpleteam.report.numbers import number_of, number_or_dash, plain
from purpleteam.report.view import (
    DASH,
    Badge,
    Block,
    Cell,
    Given,
    Inline,
    Number,
    Prose,
    Reading,
    RecordLink,
    Section,
    Table,
    row,
)

Column = Callable[[Evidence, Measurement], "Inline | Cell"]
"""What stands in a column of the row about a measurement."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table that is declared: which measurements, one a row, and what its columns show."""

    caption: str
    metrics: tuple[str, ...]
    columns: Mapping[str, Column]
    where: Callable[[Evidence, Measurement], bool] | None = None
    """Which of those measurements; all of them where it is not given."""
    folded: bool = False
    dense: bool = False
    note: Cell = ()
    optional: tuple[str, ...] = ()
    """Columns that go where every row has a dash."""

    def __call__(self, evidence: Evidence) -> list[Block]:
        """Return the table, or nothing where nothing of it was measured."""
        found = [
            one
            for name in self.metrics
            for one in evidence.find(name)
            if self.where is None or self.where(evidence, one)
        ]
        place = {name: number for number, name in enumerate(evidence.models)}
        found.sort(key=lambda one: place.get(model_name(one), -1))
        return [self.of(evidence, found)] if found else []

    def of(self, evidence: Evidence, found: Iterable[Measurement]) -> Table:
        """Return the table of those measurements."""
        lines = [
            (one, {name: cell(evidence, one) for name, cell in self.columns.items()})
            for one in found
        ]
        names = [
            name
            for name in self.columns
            if name not in self.optional
            or any(cells[name] not in (DASH, (DASH,)) for _, cells in lines)
        ]
        rows = tuple(row(*(cells[name] for name in names), record=one.id) for one, cells in lines)
        return Table(
            caption=self.caption,
            columns=tuple(names),
            rows=rows,
            folded=self.folded,
            dense=self.dense,
            note=self.note,
        )


Part = Callable[[Evidence], Iterable[Block]]
"""A Sheet, or a function that returns blocks: none where it has nothing to show."""


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
        return bool(
            any(self._counts(evidence, one) for one in evidence.measurements)
            or evidence.notes(*self.notes)
            or any(evidence.of(kind) for kind in self.kinds)
            or evidence.checks(*self.checks)
            or evidence.galleries(*self.galleries)
            or (self.stage and evidence.failures(self.stage))
        )

    def _counts(self, evidence: Evidence, one: Measurement) -> bool:
        return (
            one.name in self.metrics
            and (not self.roles or evidence.role(model_name(one)) in self.roles)
            and (self.lab is None or bool(one.how.get("lab")) == self.lab)
        )

    def section(self, id: str, evidence: Evidence) -> Section:
        """Return the chapter on that run; work of its stage that failed stands first."""
        failed = [_failed(one) for one in evidence.failures(self.stage)] if self.stage else []
        blocks = [block for part in self.parts for block in part(evidence)]
        reading = [Reading(self.means, self.means_not)] if self.means else []
        return Section(id=id, title=self.title, lead=self.lead, blocks=(*failed, *blocks, *reading))


CHAPTERS: Registry[Chapter] = Registry("chapter")


def ordered() -> list[str]:
    """Return the names of all chapters, each after the one that it follows.

    What follows the same chapter comes in order of length, so that a plug-in's one chapter does
    not wait for the end of the page.
    """
    following: dict[str, list[str]] = {}
    for name in CHAPTERS:
        after = CHAPTERS[name].after
        following.setdefault(after if after in CHAPTERS else "", []).append(name)

    def behind(name: str) -> list[str]:
        lines = [[one, *behind(one)] for one in following.get(name, [])]
        return [one for listed in sorted(lines, key=lambda it: (len(it), it)) for one in listed]

    return behind("")


def _failed(one: Failure) -> Prose:
    text = f" {one.what}: {one.reason} "
    return Prose((Badge("failed", "bad"), text, RecordLink(one.id)), style="callout")


def of_model(evidence: Evidence, one: Measurement) -> Inline:
    """Return the name of the model that a measurement is about."""
    return model_name(one) or DASH


def of_seed(evidence: Evidence, one: Measurement) -> Inline:
    """Return the seed of a measurement."""
    return DASH if one.seed is None else Given(str(one.seed), one.id)


def of_itself(evidence: Evidence, one: Measurement) -> Number:
    """Return the measured number."""
    return number_of(one)


def given(one: Measurement, key: str) -> Inline:
    """Return a parameter of how something was measured, or a dash where it has none."""
    value = one.how.get(key)
    if value is None:
        return DASH
    return Given(plain(value) if isinstance(value, int | float) else str(value), one.id)


def of_how(key: str) -> Column:
    """Return a column that shows a parameter of how something was measured."""
    return lambda _, one: given(one, key)


def beside(name: str, **how: object) -> Column:
    """Return a column that shows the metric `name` of the same model, done in that way."""

    def cell(evidence: Evidence, one: Measurement) -> Inline:
        same = one.name == name and all(one.how.get(key) == value for key, value in how.items())
        return number_or_dash(one if same else about(evidence.find(name), one, **how))

    return cell
