"""In one look: the sentence, the picture and the verdict cards."""

from __future__ import annotations

from purpleteam.core.records import Measurement
from purpleteam.report.blocks import bar_of
from purpleteam.report.chapters.cards import cards
from purpleteam.report.collect import Evidence, model_name
from purpleteam.report.figures import bars
from purpleteam.report.numbers import number_of, radius
from purpleteam.report.published import published_table
from purpleteam.report.view import (
    DASH,
    Block,
    Cell,
    Chapter,
    Figure,
    Given,
    Missing,
    Prose,
    Reading,
    Table,
    row,
)

MEANS = (
    "Each card is a verdict and the number behind it. Follow a number to its record, and from the "
    "record to the command that measures it again."
)
MEANS_NOT = (
    "An accuracy under attack is what the attacks tried here left standing: a stronger attack can "
    "only lower it. Intervals cover the choice of test images, not the strength of the attack."
)


def chapter(evidence: Evidence) -> Chapter:
    """Return the first chapter."""
    blocks: list[Block] = [*_headline(evidence)]
    figure = claims_figure(evidence)
    if figure is not None:
        blocks.append(figure)
    blocks.append(cards(evidence) or Missing("Nothing has been measured yet."))
    blocks.append(Reading(MEANS, MEANS_NOT))
    if (table := published_table(evidence)) is not None:
        blocks.append(table)
    return Chapter(
        id="in-one-look",
        title="In one look",
        lead="What was claimed, what is true, and what is still open.",
        blocks=tuple(blocks),
    )


def _headline(evidence: Evidence) -> list[Block]:
    pairs = evidence.claims()
    if not pairs:
        return []
    claimed, true = max(pairs, key=lambda pair: _gap(*pair))
    sentence: Cell = (number_of(claimed), " claimed. At most ", number_of(true), " true.")
    model = model_name(claimed)
    within = Given(radius(claimed.how.get("epsilon")), claimed.id)
    explained: Cell = (
        f"Given images that were made against another model, {model} reads the first share of "
        "them rightly, and that was called robust. Attacked itself, within the same ",
        within,
        ", it keeps no more than the second. Both are measured; only the second is about an "
        "adversary who has the model.",
    )
    return [Prose(sentence, style="headline"), Prose(explained)]


def _gap(claimed: Measurement, true: Measurement) -> float:
    return number_of(claimed).value - number_of(true).value


def claims_figure(evidence: Evidence) -> Figure | None:
    """Return claimed beside true for every model that has both, or None."""
    pairs = sorted(evidence.claims(), key=lambda pair: -_gap(*pair))
    if not pairs:
        return None
    groups = [
        (
            model_name(claimed),
            (bar_of(claimed, "claimed", "transferred"), bar_of(true, "true", "attacked itself")),
        )
        for claimed, true in pairs
    ]
    title = "Accuracy under attack: claimed and true"
    rows = tuple(
        row(
            model_name(claimed),
            Given(f"{claimed.how.get('epsilon')}", claimed.id),
            number_of(claimed),
            number_of(true),
            (Given(str(true.how.get("attack", DASH)), true.id),),
        )
        for claimed, true in pairs
    )
    return Figure(
        title=title,
        svg=bars(
            title,
            "For each model, accuracy on transferred images and under attack on itself.",
            groups,
        ),
        caption=(
            "Pale: images made against another model, as both seeds tested their defences. "
            "Solid: the strongest attack here on the model itself, same radius. Whiskers "
            "are intervals of sampling.",
        ),
        table=Table(
            caption=title,
            columns=("Model", "ε", "Transferred images", "Attacked itself", "Strongest attack"),
            rows=rows,
            folded=True,
        ),
    )
