"""A confusion matrix as a heat map: the diagonal is right, everything else is a mistake."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from purpleteam.report.figures.svg import drawing, element, text

CELL, LEFT, TOP = 40, 64, 50


def heatmap(
    title: str,
    description: str,
    counts: Sequence[Sequence[int]],
    classes: Sequence[str],
    record: str,
) -> Markup:
    """Return the matrix; a cell is as dark as the root of its share of the row's images."""
    size = len(counts)
    parts = [
        text("predicted class", LEFT + size * CELL / 2, 16, "axis-label middle"),
        text("true class", 4, TOP - 10, "axis-label"),
    ]
    for index, name in enumerate(classes):
        parts.append(text(name, LEFT + (index + 0.5) * CELL, TOP - 10, "tick middle"))
        parts.append(text(name, LEFT - 10, TOP + (index + 0.5) * CELL + 4, "tick end"))
    cells: list[Markup] = []
    for i, line in enumerate(counts):
        total = sum(line) or 1
        cells += [_cell(i, j, value, value / total) for j, value in enumerate(line)]
    parts.append(element("g", *cells, data_record=record))
    width, height = LEFT + size * CELL + 4, TOP + size * CELL + 4
    return drawing(title, description, width, height, parts, class_="square")


def _cell(i: int, j: int, value: int, share: float) -> Markup:
    x, y = LEFT + j * CELL, TOP + i * CELL
    depth = round(math.sqrt(share), 2)
    kind = ("right" if i == j else "wrong") if value else "empty"
    square = element(
        "rect",
        x=x,
        y=y,
        width=CELL - 2,
        height=CELL - 2,
        class_=kind,
        fill_opacity=depth if value else None,
    )
    strong = " strong" if depth > 0.55 else ""
    class_ = f"count{strong}" if value else "count nil"
    return square + text(str(value), x + CELL // 2 - 1, y + CELL // 2 + 4, class_)
