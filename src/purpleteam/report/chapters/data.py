"""Data: which images the numbers are about."""

from collections.abc import Iterator, Mapping

from purpleteam.core.metrics import METRICS
from purpleteam.core.records import Measurement
from purpleteam.core.schema import DATASET
from purpleteam.core.statistics import span
from purpleteam.report.blocks import checks, galleries
from purpleteam.report.chapter import CHAPTERS, Chapter
from purpleteam.report.collect import Evidence
from purpleteam.report.numbers import LISTED, count, grouped
from purpleteam.report.view import DASH, Badge, Given, Number, RecordLink, Table, row

PICTURES = ("classes", "digits")
"""Kinds of galleries that show the images themselves; the second is of earlier versions."""
SPLITS = ("train", "validation", "test")


def _images(evidence: Evidence) -> Iterator[Table]:
    """Yield each dataset as it was loaded, then the sets that numbers are about, by digest."""
    for note in evidence.notes(DATASET):
        splits, origin = note.facts.get("splits"), note.facts.get("origin")
        known = dict(splits) if isinstance(splits, Mapping) else {}
        rows = []
        for name in sorted(known, key=lambda name: SPLITS.index(name) if name in SPLITS else 9):
            if isinstance(facts := known[name], Mapping):
                counts = list(facts.get("per_class") or ())
                each = ", ".join(map(str, counts[:LISTED])) or DASH
                if rest := counts[LISTED:]:
                    each += f", and {grouped(len(rest))} more with {span(rest)}"
                cells = (Given(text, note.id) for text in (str(facts.get("n", DASH)), each))
                rows.append(row(name, *cells, record=note.id))
        size = " by ".join(str(note.facts.get(key, "?")) for key in ("height", "width", "channels"))
        said = origin.values() if isinstance(origin, Mapping) else ()
        told = "; ".join(value for value in said if isinstance(value, str))
        about = Given(f"{size}. {told} ", note.id)
        yield Table(
            f"The dataset {note.facts.get('name', '')}",
            ("Split", "Images", "Of each class, in order"),
            rows or [row(DASH, DASH, DASH)],
            note=("Height, width, channels: ", about, RecordLink(note.id)),
        )
    groups: dict[tuple[str, ...], list[Measurement]] = {}
    for record in evidence.measurements:
        subject = record.subject
        if subject.get("dataset_name") or subject.get("dataset"):
            keys = ("dataset_name", "split", "selection", "dataset")
            groups.setdefault(tuple(str(subject.get(key, DASH)) for key in keys), []).append(record)
    rows = []
    for (name, split, selection, _), records in groups.items():
        widest = max(records, key=lambda record: record.value.n)
        n, tied = widest.value.n, (widest.id,)
        cases = Number(text=grouped(n), value=n, records=tied, tally=True)
        chosen = selection if selection == "all" else Badge(selection, "warn")
        numbers = count([record.id for record in records])
        rows.append(row(name, split, chosen, cases, numbers, record=widest.id))
    columns = ("Images", "Split", "Selection", "Cases", "Numbers about them")
    yield Table("Image sets of this run", columns, rows)


CHAPTER = Chapter(
    title="Data",
    lead="Which images the numbers are about.",
    parts=(_images, galleries(*PICTURES), checks("Checks of the data", "data")),
    means="A digest, in each record, names exact pixels and labels in their order: two numbers are "
    "comparable only where it is the same. Models and thresholds are chosen on validation images, "
    "never on test images.",
    means_not="The first images of a test set are no random sample of it, so an interval around a "
    "number from a selection speaks for that selection and not for the whole set.",
    metrics=tuple(METRICS),
    notes=(DATASET,),
    checks=("data",),
    galleries=PICTURES,
    stage="data",
)
CHAPTERS.register("data")(CHAPTER)
