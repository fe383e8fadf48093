"""A confusion matrix as a heat map: the diagonal is right, everything else is a mistake."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from purpleteam.report.figures.svg import drawing, element, text

__all__ = ["heatmap"]

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
    for i, line in enumerate(counts):
        total = sum(line) or 1
        parts += [_cell(i, j, value, value / total, record) for j, value in enumerate(line)]
    width, height = LEFT + size * CELL + 4, TOP + size * CELL + 4
    return drawing(title, description, width, height, parts, class_="square")


def _cell(i: int, j: int, value: int, share: float, record: str) -> Markup:
    x, y = LEFT + j * CELL, TOP + i * CELL
    kind = "right" if i == j else "wrong"
    depth = round(math.sqrt(share), 3)
    strong = " strong" if depth > 0.55 else ""
    return element(
        "g",
        element("rect", x=x, y=y, width=CELL - 2, height=CELL - 2, rx=3, class_="cell empty"),
        element(
            "rect",
            x=x,
            y=y,
            width=CELL - 2,
            height=CELL - 2,
            rx=3,
            class_=f"cell {kind}",
            fill_opacity=depth,
        ),
        text(
            str(value),
            x + CELL / 2 - 1,
            y + CELL / 2 + 4,
            f"count{strong}" if value else "count nil",
        ),
        data_record=record,
    )
