"""Blocks that several chapters share: checks, galleries, confusion matrices, facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from purpleteam.core.records import CheckResult, Measurement, Note
from purpleteam.core.statistics import Counts
from purpleteam.report.collect import Evidence, items, model_name
from purpleteam.report.figures import Bar, heatmap
from purpleteam.report.numbers import grouped, number_of, plain
from purpleteam.report.png import data_uri, png_size
from purpleteam.report.view import (
    DASH,
    Badge,
    Block,
    Cell,
    Figure,
    Gallery,
    Given,
    Inline,
    Missing,
    Mono,
    Picture,
    RecordLink,
    Row,
    Table,
    row,
)

TONES = {"fail": "bad", "error": "bad", "broken": "bad", "stale": "warn"}
LARGEST_PICTURE = 400_000
"""Bytes; a larger PNG is named and not shown, so that the page stays light."""


def verdict_badge(verdict: str) -> Badge:
    """Return a check's verdict as a badge; only `pass` is good."""
    return Badge(verdict, "good" if verdict == "pass" else TONES.get(verdict, "quiet"))


def given(measurement: Measurement, key: str, prefix: str = "") -> Inline:
    """Return a parameter of how something was measured, or a dash where it has none."""
    value = measurement.how.get(key)
    if value is None:
        return DASH
    shown = plain(value) if isinstance(value, int | float) else str(value)
    return Given(prefix + shown, measurement.id)


def colour_of(evidence: Evidence, model: str) -> int:
    """Return the model's colour, the same in every figure."""
    return evidence.models.index(model) % 8 if model in evidence.models else 0


def checks_block(checks: Sequence[CheckResult], caption: str, missing: str) -> Block:
    """Return a table of executed checks, or say plainly that none was."""
    if not checks:
        return Missing(missing)
    rows = tuple(_check_row(check) for check in sorted(checks, key=lambda one: one.check))
    columns = (
        "Check",
        "Verdict",
        "What a pass proves, and what was measured",
        "Proved able to fail",
    )
    return Table(caption=caption, columns=columns, rows=rows)


def _check_row(check: CheckResult) -> Row:
    control = check.negative_control.get("failed_as_required", False)
    seen: list[Inline] = [check.proves]
    if check.measured is not None:
        seen += ["\n", Mono(_brief(check.measured))]
    if check.threshold is not None:
        seen += [" against ", Mono(_brief(check.threshold))]
    if check.message:
        seen.append(f"\n{check.message}")
    return row(
        (Mono(check.check), RecordLink(check.id)),
        verdict_badge(check.verdict),
        tuple(seen),
        Badge("yes", "good") if control else Badge("no", "warn"),
        record=check.id,
    )


def galleries(evidence: Evidence, *kinds: str) -> list[Gallery]:
    """Return the galleries of those kinds with their pictures inside the page."""
    return [_gallery(evidence.root, note) for note in evidence.galleries(*kinds)]


def _gallery(root: Path, note: Note) -> Gallery:
    pictures = tuple(_picture(root, image) for image in items(note.facts, "images"))
    return Gallery(
        title=str(note.facts.get("title", "Pictures")),
        pictures=pictures,
        record=note.id,
        kind=str(note.facts.get("kind", "")),
        note=str(note.facts.get("note", "")),
    )


def _picture(root: Path, image: Mapping[str, Any]) -> Picture:
    path, caption = str(image.get("path", "")), str(image.get("caption", ""))
    content = _content(root, path)
    size = png_size(content)
    if size is None or len(content) > LARGEST_PICTURE:
        return Picture(uri="", path=path, caption=caption, width=0, height=0)
    scale = max(1, 96 // max(size))
    return Picture(
        uri=data_uri(content, "image/png"),
        path=path,
        caption=caption,
        width=size[0] * scale,
        height=size[1] * scale,
    )


def _content(root: Path, path: str) -> bytes:
    """Return the bytes of a file inside the run folder; nothing outside is ever read."""
    for candidate in (root / path, root / "images" / path):
        inside = candidate.resolve().is_relative_to(root.resolve())
        if inside and candidate.is_file():
            return candidate.read_bytes()
    return b""


def bar_of(measurement: Measurement, style: str, name: str) -> Bar:
    """Return a rate as a bar with its interval."""
    shown, value = number_of(measurement), measurement.value
    return Bar(
        value=shown.value,
        low=getattr(value, "low", shown.value),
        high=getattr(value, "high", shown.value),
        text=shown.text,
        record=measurement.id,
        style=style,
        name=name,
    )


def matrices(found: Iterable[Measurement], *, first_open: bool = False) -> list[Block]:
    """Return confusion matrices, folded, the first of them open where that is asked for."""
    figures = [
        confusion(one, folded=bool(place) or not first_open) for place, one in enumerate(found)
    ]
    return [figure for figure in figures if figure is not None]


def confusion(measurement: Measurement, *, folded: bool = False) -> Figure | None:
    """Return a confusion matrix as a heat map with its table; None for other values."""
    value = measurement.value
    if not isinstance(value, Counts):
        return None
    names = measurement.detail.get("classes") or range(len(value.value))
    classes = [str(name) for name in names][: len(value.value)]
    seed = "" if measurement.seed is None else f", seed {measurement.seed}"
    about = f"{model_name(measurement) or 'Model'}{seed}"
    title = f"{about}: confusion matrix{_circumstances(measurement)}"
    total = number_of(measurement)
    svg = heatmap(
        title,
        "Rows are true classes, columns predicted ones; the diagonal is right.",
        value.value,
        classes,
        measurement.id,
    )
    rows = tuple(
        row(f"true {name}", *(grouped(cell) for cell in line))
        for name, line in zip(classes, value.value, strict=False)
    )
    table = Table(caption=title, columns=("", *classes), rows=rows, folded=True, dense=True)
    caption = (
        total,
        " images; darker means a larger share of the row. ",
        RecordLink(measurement.id),
    )
    return Figure(
        title=title, svg=svg, caption=caption, table=table, folded=folded, record=measurement.id
    )


def _circumstances(measurement: Measurement) -> str:
    how = measurement.how
    if how.get("attack"):
        return f" under {how['attack']}"
    return " on triggered images" if how.get("trigger") else ""


def facts_table(note: Note, caption: str, leave_out: Sequence[str] = ()) -> Table:
    """Return a note's facts one below the other, all of them traced to the note."""
    rows = tuple(
        row(key.replace("_", " "), _fact(value), record=note.id)
        for key, value in note.facts.items()
        if key not in leave_out
    )
    return Table(
        caption=caption, columns=("Fact", "As recorded"), rows=rows, note=(RecordLink(note.id),)
    )


def _fact(value: Any) -> Cell:
    if isinstance(value, str):
        return (value,)
    return (Mono(_brief(value)),) if value or value == 0 else ("none",)


def _brief(value: Any, limit: int = 240) -> str:
    if isinstance(value, Mapping):
        text = ", ".join(f"{key} {_brief(item)}" for key, item in value.items())
    elif isinstance(value, list | tuple):
        text = ", ".join(_brief(item) for item in value)
    elif isinstance(value, int | float):
        text = plain(value)
    else:
        text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
