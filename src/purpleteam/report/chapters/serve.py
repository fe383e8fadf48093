"""Serve: how the app answered, and whether it sees what the model was trained on."""

from __future__ import annotations

from collections.abc import Sequence

from purpleteam.core.records import Measurement
from purpleteam.report.blocks import checks_block, facts_table, galleries, given
from purpleteam.report.collect import Evidence, model_name
from purpleteam.report.numbers import number_of
from purpleteam.report.published import beside
from purpleteam.report.view import (
    DASH,
    Block,
    Chapter,
    Missing,
    Reading,
    RecordLink,
    Row,
    Table,
    row,
)

MEANS = (
    "Test digits are drawn again at other sizes and places, and read both ways: placed as MNIST "
    "places a digit, and merely resized. The gap is what preparation alone is worth."
)
MEANS_NOT = (
    "These drawings are simulated, not made by people, so real use may be better or worse. Checks "
    "of the running app hold for the build and the limits that were started here."
)


def chapter(evidence: Evidence) -> Chapter:
    """Return the chapter."""
    found = evidence.find("redrawn_accuracy")
    blocks: list[Block] = [
        facts_table(note, "The app that was started") for note in evidence.notes("served")
    ]
    if not blocks:
        blocks.append(Missing("The app was not started in this run."))
    blocks += galleries(evidence, "drawing")
    if found:
        blocks.append(_table(evidence, found))
    blocks += _asked(evidence)
    checks = evidence.checks("web", "serve", "app", "probe")
    blocks.append(
        checks_block(checks, "Checks of the running app", "No check of a running app was run.")
    )
    blocks.append(Reading(MEANS, MEANS_NOT))
    lead = "The drawing app: what it reads, what it refuses, what it keeps to itself."
    return Chapter(id="serve", title="Serve", lead=lead, blocks=tuple(blocks))


ASKED = {
    "served_accuracy": "drawings that the running app reads rightly",
    "trigger_sweep_rate": "the common trigger that moves most images to one label",
}


def _asked(evidence: Evidence) -> list[Block]:
    found = [one for name in ASKED for one in evidence.find(name)]
    rows = tuple(
        row(
            (model_name(one), RecordLink(one.id)),
            ASKED[one.name],
            given(one, "case"),
            number_of(one),
            record=one.id,
        )
        for one in found
    )
    columns = ("Model", "Measured", "Drawing", "Value")
    return [Table(caption="The model that is served", columns=columns, rows=rows)] if rows else []


def _table(evidence: Evidence, found: Sequence[Measurement]) -> Table:
    cases: dict[tuple[str, str], dict[str, Measurement]] = {}
    for one in found:
        key = (model_name(one), str(one.how.get("case", DASH)))
        cases.setdefault(key, {})[str(one.how.get("preprocessing", DASH))] = one
    ways = list(dict.fromkeys(way for ways in cases.values() for way in ways))
    words = {"place": "Placed as MNIST does", "resize": "Only resized"}
    return Table(
        caption="Redrawn digits, read with either preparation",
        columns=("Model", "Drawing", *(words.get(way, way) for way in ways), "Published"),
        rows=tuple(_row(evidence, model, ways, measured) for (model, _), measured in cases.items()),
    )


def _row(
    evidence: Evidence, model: str, ways: Sequence[str], measured: dict[str, Measurement]
) -> Row:
    first = next(iter(measured.values()))
    return row(
        (model, RecordLink(first.id)),
        given(first, "case"),
        *(number_of(measured[way]) if way in measured else DASH for way in ways),
        beside(evidence, first),
    )
