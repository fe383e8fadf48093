"""Data: which images the numbers are about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from purpleteam.core.records import Measurement, Note
from purpleteam.report.blocks import checks_block, galleries
from purpleteam.report.collect import Evidence
from purpleteam.report.numbers import count, grouped, short_digest
from purpleteam.report.view import (
    DASH,
    Badge,
    Block,
    Chapter,
    Given,
    Inline,
    Missing,
    Mono,
    Number,
    Reading,
    RecordLink,
    Row,
    Table,
    row,
)

MEANS = (
    "A digest names exact pixels and labels in their order: two numbers are comparable only where "
    "it is the same. Models and thresholds are chosen on validation images, never on test images."
)
MEANS_NOT = (
    "The first images of a test set are no random sample of it, so an interval around a number "
    "from a selection speaks for that selection and not for the whole set."
)


def chapter(evidence: Evidence) -> Chapter:
    """Return the chapter."""
    blocks: list[Block] = [_splits(note) for note in evidence.notes("dataset")]
    blocks += [_table(evidence), *galleries(evidence, "digits")]
    blocks.append(
        checks_block(evidence.checks("data"), "Checks of the data", "No check of the data was run.")
    )
    blocks.append(Reading(MEANS, MEANS_NOT))
    return Chapter(
        id="data",
        title="Data",
        lead="Which images the numbers are about, by name, split and digest.",
        blocks=tuple(blocks),
    )


def _splits(note: Note) -> Block:
    """Return the dataset as it was loaded: its splits, how many images each, which digest."""
    splits = note.facts.get("splits")
    rows = tuple(
        row(
            name,
            Given(str(facts.get("n", DASH)), note.id),
            Given(", ".join(map(str, facts.get("per_class") or ())) or DASH, note.id),
            Mono(short_digest(facts.get("digest", DASH))),
            record=note.id,
        )
        for name, facts in _in_order(splits if isinstance(splits, Mapping) else {})
        if isinstance(facts, Mapping)
    )
    size = (note.facts.get(key, "?") for key in ("height", "width", "channels"))
    origin = note.facts.get("origin")
    said = origin.values() if isinstance(origin, Mapping) else ()
    told = "; ".join(str(value) for value in said if isinstance(value, str))
    shape = Given(" by ".join(map(str, size)) + f". {told} ", note.id)
    return Table(
        caption=f"The dataset {note.facts.get('name', '')}",
        columns=("Split", "Images", "Of each class, in order", "Digest"),
        rows=rows,
        note=("Height, width and channels: ", shape, RecordLink(note.id)),
    )


def _in_order(splits: Mapping[str, Any]) -> list[tuple[str, Any]]:
    order = ("train", "validation", "test")
    return sorted(splits.items(), key=lambda pair: order.index(pair[0]) if pair[0] in order else 9)


def _table(evidence: Evidence) -> Block:
    groups: dict[tuple[str, str, str, str], list[Measurement]] = {}
    for one in evidence.measurements:
        subject = one.subject
        if subject.get("dataset_name") or subject.get("dataset"):
            key = tuple(
                str(subject.get(name, DASH))
                for name in ("dataset_name", "split", "selection", "dataset")
            )
            groups.setdefault(key, []).append(one)  # type: ignore[arg-type]
    if not groups:
        return Missing("No measurement names its images, so this run has no data to show.")
    columns = ("Images", "Split", "Selection", "Digest", "Cases", "Numbers about them")
    rows = tuple(_row(key, found) for key, found in groups.items())
    return Table(caption="Image sets of this run", columns=columns, rows=rows)


def _row(key: tuple[str, str, str, str], found: list[Measurement]) -> Row:
    name, split, selection, digest = key
    whole = max(found, key=lambda one: one.value.n)
    cases = Number(
        text=grouped(whole.value.n), value=whole.value.n, records=(whole.id,), tally=True
    )
    chosen: Inline = selection if selection == "all" else Badge(selection, "warn")
    return row(
        name,
        split,
        chosen,
        Mono(short_digest(digest)),
        cases,
        count([one.id for one in found]),
        record=whole.id,
    )
