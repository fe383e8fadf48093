"""Serve: how the app answered, and whether it sees what the model was trained on."""

from __future__ import annotations

from purpleteam.core.records import Measurement
from purpleteam.core.schema import SERVED
from purpleteam.report.blocks import checks, facts_table, galleries
from purpleteam.report.chapter import (
    CHAPTERS,
    Chapter,
    Sheet,
    given,
    of_how,
    of_itself,
    of_model,
)
from purpleteam.report.collect import Evidence, model_name
from purpleteam.report.numbers import heading, number_of
from purpleteam.report.view import DASH, Block, RecordLink, Table, row

WAYS = {"place": "Centred and scaled as in training", "resize": "Only resized"}
ASKED = ("served_accuracy", "trigger_sweep_rate")


def _app(evidence: Evidence) -> list[Block]:
    return [facts_table(note, "The app that was started") for note in evidence.notes(SERVED)]


def _redrawn(evidence: Evidence) -> list[Block]:
    """Return images that were drawn again, read with either preparation."""
    cases: dict[tuple[str, str], dict[str, Measurement]] = {}
    for record in evidence.find("redrawn_accuracy"):
        key = (model_name(record), str(record.how.get("case", DASH)))
        cases.setdefault(key, {})[str(record.how.get("preprocessing", DASH))] = record
    ways = list(dict.fromkeys(way for measured in cases.values() for way in measured))
    rows = []
    for (model, _), measured in cases.items():
        first = next(iter(measured.values()))
        numbers = (number_of(measured[way]) if way in measured else DASH for way in ways)
        rows.append(row((model, RecordLink(first.id)), given(first, "case"), *numbers))
    caption = "Images drawn again, read with either preparation"
    columns = (
        "Model",
        "Drawing",
        *(heading("redrawn_accuracy", WAYS.get(way, way)) for way in ways),
    )
    return [Table(caption=caption, columns=columns, rows=tuple(rows))] if rows else []


CHAPTERS.register("serve")(
    Chapter(
        title="Serve",
        lead="The drawing app: what it reads, what it refuses, what it keeps to itself.",
        metrics=("redrawn_accuracy", *ASKED),
        parts=(
            _app,
            galleries("drawing"),
            _redrawn,
            Sheet(
                caption="The model that is served",
                metrics=ASKED,
                columns={
                    "Model": of_model,
                    "Measured": lambda _, record: heading(record.name),
                    "Drawing": of_how("case"),
                    "Value": of_itself,
                },
                optional=("Drawing",),
            ),
            checks("Checks of the running app", "web", "serve", "app", "probe"),
        ),
        means="Test images are drawn again at other sizes and places, and read both ways: placed "
        "as the training images are, and merely resized. The gap is what preparation alone is "
        "worth.",
        means_not="These drawings are simulated, not made by people, so real use may be better or "
        "worse. Checks of the running app hold for the build and the limits that were started "
        "here.",
        notes=(SERVED,),
        checks=("web", "serve", "app", "probe"),
        galleries=("drawing",),
        stage="serve",
        after="threats",
    )
)
