"""The two course reports: what they claimed beside what is measured here.

A figure of the note `published-figures` is `{report, what, value, where}`. It stands where
`what` is the measurement's name and `model_name`, `split` and every parameter that the
figure gives (`attack`, `epsilon`, ...) agree, on MNIST.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from purpleteam.core.records import Measurement
from purpleteam.core.schema import SYSTEM_MODEL
from purpleteam.report.blocks import bars_figure
from purpleteam.report.chapter import CHAPTERS, Chapter
from purpleteam.report.chapters.threats import listed
from purpleteam.report.collect import Evidence, epsilon_of, items, model_name, value_of
from purpleteam.report.numbers import number_of, number_or_dash, of_fraction, radius
from purpleteam.report.view import (
    DASH,
    Block,
    Cell,
    Given,
    Heading,
    Inline,
    Number,
    Prose,
    RecordLink,
    Table,
    row,
)

FIGURES = ("published-figures", "seeds-figures")
"""Names of the note: today's, and that of runs of schema 1."""
THREATS = "published-threats"
DATASET = "mnist"
"""What both reports are about: their figures stand beside no other images."""
OWN = ("report", "seed", "what", "value", "where", "model_name", "note", "meaning", "how")
"""Keys of a figure that are no parameter of a measurement."""


def claims(evidence: Evidence) -> list[tuple[Measurement, Measurement]]:
    """Return, a model at a time, what transferred images claim and what an attack on it shows.

    Both at one radius: the headline's where there is such a pair, else the model's largest.
    Images that left their radius (cast to bytes unclipped) are no fair claim about a model, but
    for the one whose report tested it so.
    """
    pairs = []
    for model in evidence.models_with("transfer_accuracy"):
        both = [
            (claimed, true)
            for claimed in evidence.find("transfer_accuracy", model)
            if (true := evidence.weakest(model, epsilon_of(claimed))) is not None
            and (_within_radius(claimed) or _own_claim(claimed))
        ]
        if both:
            headline = evidence.headline_epsilon
            pairs.append(
                max(
                    both,
                    key=lambda pair: (
                        epsilon_of(pair[0]) == headline,
                        epsilon_of(pair[0]),
                        value_of(pair[0]),
                    ),
                )
            )
    return sorted(pairs, key=lambda pair: value_of(pair[1]) - value_of(pair[0]))


def _within_radius(claimed: Measurement) -> bool:
    """Say whether the transferred images lie within their radius, but for rounding to bytes."""
    return float(claimed.detail.get("largest_linf", 0.0)) <= epsilon_of(claimed) + 1 / 255


def _own_claim(claimed: Measurement) -> bool:
    """Say whether the model is the defence of the report that made such images."""
    maker = str(claimed.how.get("made_as", "")).replace("_", "-")
    return bool(maker) and model_name(claimed).startswith(maker)


def _headline(evidence: Evidence) -> list[Block]:
    pairs = claims(evidence)
    if not pairs:
        return []
    claimed, true = pairs[0]
    sentence: Cell = (number_of(claimed), " claimed. At most ", number_of(true), " true.")
    explained: Cell = (
        f"Of images that were made against another model, {model_name(claimed)} classifies the "
        "first fraction correctly, and that was called robust. Attacked itself, within the same ",
        Given(radius(claimed.how.get("epsilon")), claimed.id),
        ", it keeps no more than the second. Both are measured; only the second is about an "
        "adversary who has the model.",
    )
    return [Prose(sentence, style="headline"), Prose(explained)]


def _claims_figure(evidence: Evidence) -> list[Block]:
    pairs = claims(evidence)
    groups = [
        (
            f"{model_name(claimed)}, {radius(claimed.how.get('epsilon'))}",
            ((claimed, "claimed", "transferred"), (true, "true", "attacked itself")),
        )
        for claimed, true in pairs
    ]
    title = "Accuracy under attack: claimed and true"
    about = "For each model, accuracy on transferred images and under attack on itself."
    caption = (
        "Pale: images made against another model, as both reports tested their defences. Solid: "
        "the strongest attack here on the model itself, same radius. Whiskers are intervals of "
        "sampling.",
    )
    return [bars_figure(title, about, groups, caption)] if pairs else []


def beside(evidence: Evidence, measurement: Measurement) -> list[tuple[str, Number | str]]:
    """Return what the reports published for the same thing: which report, and its figure."""
    return [
        (_report(figure), _value(figure, record))
        for record, figure in _figures(evidence)
        if _same(figure, measurement)
    ]


def _beside(evidence: Evidence) -> list[Block]:
    """Return every measurement of which a report published the same."""
    rows = []
    for record in evidence.measurements:
        published = beside(evidence, record)
        if published:
            words = [f"{word}{record.how[key]}" for key, word in WORDS.items() if key in record.how]
            cells: list[Inline] = []
            for report, value in published:
                cells += [f"{report}:\N{NO-BREAK SPACE}", value, "\n"]
            seed = "" if record.seed is None else f", seed {record.seed}"
            rows.append(
                row(
                    (", ".join([record.name.replace("_", " "), *words]), RecordLink(record.id)),
                    (model_name(record), Given(seed, record.id)),
                    tuple(cells[:-1]),
                    number_of(record),
                    number_or_dash(_itself(evidence, record)),
                    record=record.id,
                )
            )
    columns = ("What", "Model", "Published", "Measured here", "Attacked itself, same ε")
    caption = "What the two course reports published, and the same thing measured here"
    return [Table(caption=caption, columns=columns, rows=tuple(rows))] if rows else []


WORDS = {"attack": "", "epsilon": "ε = "}


def _itself(evidence: Evidence, record: Measurement) -> Measurement | None:
    if record.name != "transfer_accuracy":
        return None
    return evidence.weakest(model_name(record), epsilon_of(record))


def _published(evidence: Evidence) -> list[Block]:
    """Return every figure that the reports published, with its place."""
    rows = tuple(
        row(
            f"Report {figure.get('seed', '?')}",
            _what(figure),
            _value(figure, record),
            str(figure.get("where", "")),
            str(figure.get("meaning", figure.get("note", ""))) or DASH,
            record=record,
        )
        for record, figure in _figures(evidence)
    )
    columns = ("Report", "What it calls it", "Published", "Where", "What it was")
    caption = "All figures of the two course reports, on MNIST"
    return [Table(caption=caption, columns=columns, rows=rows, folded=True)] if rows else []


def _threats(evidence: Evidence) -> list[Block]:
    """Return the reports' threats, each beside the system model's."""
    tables = [
        table
        for note in evidence.notes(THREATS, SYSTEM_MODEL)
        for table in listed(
            "Report",
            note.facts.get("tables", note.facts.get("seed_tables")),
            note.facts.get("columns"),
            note.id,
        )
    ]
    title = "The threats of the two course reports, each beside the one of this system"
    return [Heading(title), *tables] if tables else []


def _figures(evidence: Evidence) -> list[tuple[str, Mapping[str, Any]]]:
    return [(note.id, figure) for note in evidence.notes(*FIGURES) for figure in items(note.facts)]


def _report(figure: Mapping[str, Any]) -> str:
    return str(figure.get("report", figure.get("seed", "?")))


def _same(figure: Mapping[str, Any], measurement: Measurement) -> bool:
    if (figure.get("what"), figure.get("model_name")) != (
        measurement.name,
        model_name(measurement),
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


CHAPTERS.register("assignment")(
    Chapter(
        title="The course reports",
        lead="What two course reports claimed, beside the same thing measured here.",
        parts=(_headline, _claims_figure, _beside, _published, _threats),
        notes=(*FIGURES, THREATS),
        after="serve",
    )
)
