"""Serve: how the app answered, and whether it sees what the model was trained on."""

from purpleteam.core.records import Measurement
from purpleteam.core.schema import SERVED
from purpleteam.report import chapter
from purpleteam.report.blocks import brief, checks, galleries
from purpleteam.report.collect import Evidence, model_name
from purpleteam.report.numbers import heading, number_of
from purpleteam.report.view import DASH, Mono, RecordLink, Table, row

WAYS = {"place": "Centred and scaled as in training", "resize": "Only resized"}
ASKED = ("served_accuracy", "trigger_sweep_rate")


def _app(evidence: Evidence) -> list[Table]:
    """Return the facts of the app one below the other, all of them traced to the note."""
    tables = []
    for note in evidence.notes(SERVED):
        rows = []
        for key, value in note.facts.items():
            if not str(value).startswith("sha256:"):
                none = "" if value or value == 0 else "none"
                fact = value if isinstance(value, str) else none or Mono(brief(value))
                rows.append(row(key.replace("_", " "), fact, record=note.id))
        columns, link = ("Fact", "As recorded"), (RecordLink(note.id),)
        tables.append(Table("The app that was started", columns, rows, note=link))
    return tables


def _redrawn(evidence: Evidence) -> Table:
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
        rows.append(row((model, RecordLink(first.id)), chapter.given(first, "case"), *numbers))
    headings = (heading("redrawn_accuracy", WAYS.get(way, way)) for way in ways)
    columns = ("Model", "Drawing", *headings)
    return Table("Images drawn again, read with either preparation", columns, rows)


chapter.CHAPTERS.register("serve")(
    chapter.Chapter(
        title="Serve",
        lead="The drawing app: what it reads, what it refuses, what it keeps to itself.",
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
