"""A sweep: each metric over what was varied, as curves, as a map and as a table."""

from collections.abc import Iterator

from purpleteam.core.schema import SWEEP_TABLE
from purpleteam.report.chapter import CHAPTERS, Chapter
from purpleteam.report.collect import Evidence
from purpleteam.report.figures import Series, curves, heat
from purpleteam.report.numbers import grouped, heading, of_epsilon
from purpleteam.report.swept import Metric
from purpleteam.report.view import DASH, Figure, Number, Prose, Span, Table, row

FIRST = ("epsilon", "limit")
"""What is on a figure's x-axis, the first that was varied; else another number."""
MANY, LINES = 40, 12
"""A longer table is folded; of more lines no figure is drawn."""


def _said(name: str, text: str) -> str:
    if name.rpartition(".")[2] == "epsilon" and (number := _number(text)) is not None:
        return of_epsilon(number)
    return text or DASH


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _axis(metric: Metric) -> str:
    """Return which option is on the x-axis: a number of which there are several; empty if none."""
    names = [
        name
        for name in metric.names
        if all(_number(text) is not None for text in metric.values[name])
    ]
    return next((name for name in (*FIRST, *names) if name in names), "")


def _left_out(evidence: Evidence) -> Iterator[Prose]:
    """Say what of a large sweep is not on the page."""
    if not evidence.swept.whole:
        lines, table = grouped(evidence.swept.lines), Span("mono", SWEEP_TABLE)
        told = f"The table has {lines} lines: too many for a page, which shows means, the lowest "
        yield Prose(
            (told + "and the highest, and holds the records of these alone. All are in ", table,
             "; purple verify looks at the records themselves."), "callout",
        )  # fmt: skip


def _curves(evidence: Evidence) -> Iterator[Figure]:
    for name, metric in evidence.swept.metrics.items():
        axis = _axis(metric)
        if metric.many or not axis:
            continue
        rest = [other for other in metric.names if other != axis]
        lines: dict[str, dict[float, Number]] = {}
        groups = metric.by(axis, *rest)
        for (text, *others), group in sorted(groups.items(), key=lambda one: float(one[0][0])):
            told = (_said(*pair) for pair in zip(rest, others, strict=True) if pair[1])
            label = ", ".join(told) or name.replace("_", " ")
            lines.setdefault(label, {})[float(text)] = group.number
        if len(lines) > LINES:
            continue
        series = [
            Series(label=label, points=line, colour=place % 8)
            for place, (label, line) in enumerate(lines.items())
        ]
        title = f"{heading(name)} over {axis}"
        y_label = name.replace("_", " ")
        about = f"One line for each choice of the rest: the mean over seeds of {y_label}."
        shares = all(group.are_shares for group in groups.values())
        over = (0.0, 1.0) if shares else None
        svg = curves(title, about, series, x_label=axis, y_label=y_label, over=over, percent=shares)
        said = "Bands are 95 % intervals: over seeds where there are several, else of the sample."
        yield Figure(title, svg, (said,))


def _maps(evidence: Evidence) -> Iterator[Figure]:
    """A square for each pair of the two options of which there are most values."""
    for name, metric in evidence.swept.metrics.items():
        pair = next((names for names in metric.views if len(names) == 2), tuple(metric.main[:2]))
        if len(pair) < 2 or (metric.many and pair not in metric.views):
            continue
        down, across = sorted(pair, key=lambda option: option == _axis(metric))
        groups = metric.by(*pair)
        found = {tuple(key[pair.index(option)] for option in (down, across)): group
                 for key, group in groups.items()}  # fmt: skip
        rows, columns = (list(metric.values[option]) for option in (down, across))
        rest = sorted(set(metric.names) - set(pair))
        # over different things a mean has no interval
        means = {at: one.spread[0] if rest else one.number for at, one in found.items()}
        cells = [[means.get((r, c)) for c in columns] for r in rows]
        title = f"{heading(name)} by {down} and {across}"
        over = f" and over {', '.join(rest)}" if rest else ""
        about = f"One square for each pair; the mean over seeds{over}."
        said = [[_said(option, text) for text in texts]
                for option, texts in ((down, rows), (across, columns))]  # fmt: skip
        table = Table(title, (down, *said[1]), [
            row(text, *(number or DASH for number in line))
            for text, line in zip(said[0], cells, strict=True)
        ], folded=True)  # fmt: skip
        yield Figure(title, heat(title, about, said[0], said[1], cells), (about,), table)


def _tables(evidence: Evidence) -> Iterator[Table]:
    for name, metric in evidence.swept.metrics.items():
        if metric.many:
            yield from _of_single_options(name, metric)
            continue
        names = metric.names
        rows = [
            row(*(_said(*pair) for pair in zip(names, key, strict=True)), group.number)
            for key, group in metric.by(*names).items()
        ]
        title = f"{heading(name)}, mean over seeds"
        yield Table(title, (*names, heading(name)), rows, folded=len(rows) > MANY, dense=True)


def _of_single_options(name: str, metric: Metric) -> Iterator[Table]:
    for names, groups in metric.views.items():
        if len(names) < 2:
            by = names[0] if names else "all"
            rows = [
                row(_said(by, *key) if key else "all", grouped(len(group.values)), *group.spread)
                for key, group in groups.items()
            ]
            title = f"{heading(name)} by {by}, over all the rest" if names else heading(name)
            columns = (by, "Cells", "Mean", "Lowest", "Highest")
            yield Table(title, columns, rows, folded=len(rows) > MANY, dense=True)


class SweepChapter(Chapter):
    """Told where the run is a sweep."""

    def is_told(self, evidence: Evidence) -> bool:
        return "sweep" in evidence.asked


CHAPTER = SweepChapter(
    title="Sweep",
    lead="The product of what was asked for: every cell is one call of a verb.",
    parts=(_left_out, _curves, _maps, _tables),
    means="A number is the mean of its cells over seeds, with a t interval; where all are alike, "
    "or there is one, it is with the interval of the sample.",
    means_not="Cells share their images, so two curves differ less by chance than their bands "
    "say; and of many cells the best one is best partly by chance.",
    stage="sweep",
    after="data",
)
CHAPTERS.register("sweep")(CHAPTER)
