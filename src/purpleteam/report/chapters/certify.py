"""Certificates: what no adversary within a bound can change, whatever it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from purpleteam.core.records import Measurement
from purpleteam.report.blocks import bar_of
from purpleteam.report.collect import Evidence, model_name
from purpleteam.report.figures import bars
from purpleteam.report.numbers import number_of, number_or_dash
from purpleteam.report.view import (
    Block,
    Chapter,
    Figure,
    Given,
    Missing,
    Reading,
    Table,
    row,
)

MEANS = (
    "Many tiny networks are trained, each on a part of the training set that the images' content "
    "alone decides, and vote. An image that is put in or taken out can change one of them, so an "
    "answer with a wide enough lead cannot be turned by so many changed images, whatever they "
    "are. A replaced image counts as two changes."
)
MEANS_NOT = (
    "The certificate is about this vote, not about the other models of the report, and about the "
    "training images alone: it says nothing of an image that is changed when it is read."
)


def chapter(evidence: Evidence) -> Chapter:
    """Return the chapter."""
    found = evidence.find("certified_accuracy")
    blocks: list[Block] = []
    if found:
        blocks += [_figure(evidence, found), _table(evidence, found), Reading(MEANS, MEANS_NOT)]
    else:
        blocks.append(Missing("Nothing was certified: what follows is what attacks tried."))
    lead = "What holds against every adversary within the bound, tried or not."
    return Chapter(id="certify", title="Certificates", lead=lead, blocks=tuple(blocks))


def _figure(evidence: Evidence, found: Sequence[Measurement]) -> Figure:
    clean = evidence.one("clean_accuracy", model_name(found[0]))
    groups = [("training set as it is", (bar_of(clean, "plain", "clean"),))] if clean else []
    groups += [(_changes(one), (bar_of(one, "true", "certified"),)) for one in found]
    title = "Certified accuracy over changed training images"
    return Figure(
        title=title,
        svg=bars(title, "One bar for each number of inserted or removed images.", groups),
        caption=("Each bar is a lower bound that no poison of so many images can break.",),
        table=Table(
            caption=title,
            columns=("Changed training images", "Certified accuracy"),
            rows=tuple(row(_changes(one), number_of(one)) for one in found),
            folded=True,
        ),
    )


def _changes(one: Measurement) -> str:
    return f"{one.how.get('epsilon')} changed"


def _table(evidence: Evidence, found: Sequence[Measurement]) -> Table:
    rows = []
    for one in found:
        layout = one.how.get("layout")
        parts = layout.get("parts") if isinstance(layout, Mapping) else None
        clean = evidence.one("clean_accuracy", model_name(one))
        rows.append(
            row(
                model_name(one),
                Given(str(one.how.get("method")), one.id),
                Given(str(parts), one.id),
                number_or_dash(clean),
                Given(str(one.how.get("epsilon")), one.id),
                number_of(one),
            )
        )
    columns = ("Model", "Method", "Parts", "Clean accuracy", "Changes", "Certified accuracy")
    return Table(caption="Certified accuracy", columns=columns, rows=tuple(rows))
