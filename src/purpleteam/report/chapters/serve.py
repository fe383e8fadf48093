"""Serve: how the app answered, and whether it sees what the model was trained on."""

from collections.abc import Iterator

from purpleteam.core.schema import SERVED
from purpleteam.report import chapter
from purpleteam.report.blocks import brief, checks, galleries
from purpleteam.report.collect import Evidence, model_name
from purpleteam.report.numbers import heading, number_of
from purpleteam.report.view import DASH, Cell, Inline, Mono, RecordLink, Table, grid, row

WAYS = {"place": "Centred and scaled as in training", "resize": "Only resized"}
ASKED = ("served_accuracy", "trigger_sweep_rate")


def _app(evidence: Evidence) -> Iterator[Table]:
    """Yield the facts of the app one below the other, all of them traced to the note."""
    for note in evidence.notes(SERVED):
        rows = []
        for key, value in note.facts.items():
            if not str(value).startswith("sha256:"):
                none = "" if value or value == 0 else "none"
                fact = value if isinstance(value, str) else none or Mono(brief(value))
                rows.append(row(key.replace("_", " "), fact, record=note.id))
        columns, link = ("Fact", "As recorded"), (RecordLink(note.id),)
        yield Table("The app that was started", columns, rows, note=link)


def _redrawn(evidence: Evidence) -> Table:
    """Return images that were drawn again, read with either preparation."""
    cases: dict[tuple[str, str], dict[str, Inline | Cell]] = {}
    for record in evidence.find("redrawn_accuracy"):
        model, way = model_name(record), str(record.how.get("preprocessing", DASH))
        named = {"Model": (model, RecordLink(record.id)), "Drawing": chapter.given(record, "case")}
        case = cases.setdefault((model, str(record.how.get("case", DASH))), {**named})
        case[heading("redrawn_accuracy", WAYS.get(way, way))] = number_of(record)
    columns, rows = grid(cases.values())
    return Table("Images drawn again, read with either preparation", columns, rows)


CHAPTER = chapter.Chapter(
    title="Serve",
    lead="The drawing app: what it reads, what it refuses, what it does not disclose.",
    metrics=("redrawn_accuracy", *ASKED),
    parts=(
        _app,
        galleries("drawing"),
        _redrawn,
        chapter.Sheet(
            caption="The model that is served",
            metrics=ASKED,
            columns={
                "Model": chapter.of_model,
                "Measured": chapter.of_name,
                "Drawing": chapter.of_how("case"),
                "Value": chapter.of_itself,
            },
            optional=("Drawing",),
        ),
        checks("Checks of the running app", "web", "serve", "app", "probe"),
    ),
    means="Test images are drawn again at other sizes and places, and read both ways: placed as "
    "the training images are, and merely resized. The gap is what preparation alone is worth.",
    means_not="These drawings are simulated, not made by people, so real use may be better or "
    "worse. Checks of the running app hold for the build and the limits that were started here.",
    notes=(SERVED,),
    checks=("web", "serve", "app", "probe"),
    galleries=("drawing",),
    stage="serve",
    after="threats",
)
chapter.CHAPTERS.register("serve")(CHAPTER)
