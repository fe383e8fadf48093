"""SVG elements as text: everything is escaped, nothing carries a style of its own.

Colours and fonts come from the page's style sheet by class, so a drawing follows light, dark
and print. Text that is an axis tick has the class `tick`; any other figure carries the id of
its record.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from markupsafe import Markup, escape


def element(name: str, *children: Markup | str, **attributes: object) -> Markup:
    """Return an element; `class_` and `data_record` become `class` and `data-record`."""
    pairs = (
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _attribute(value))
        for key, value in attributes.items()
        if value not in (None, "")
    )
    inside = Markup("").join(escape(child) for child in children)
    tag = Markup("{}").format(name)
    return Markup("<{}{}>{}</{}>").format(tag, Markup("").join(pairs), inside, tag)


def drawing(
    title: str,
    description: str,
    width: int,
    height: int,
    parts: Iterable[Markup],
    class_: str = "chart",
) -> Markup:
    """Return a whole SVG image with its title and description for those who cannot see it."""
    return element(
        "svg",
        element("title", title),
        element("desc", description),
        *parts,
        class_=class_,
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_label=f"{title}. {description}",
    )


def text(content: str, x: float, y: float, class_: str, record: str = "") -> Markup:
    """Return a line of text at a place; `record` names where a figure in it comes from."""
    return element("text", content, x=x, y=y, class_=class_, data_record=record)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def polyline(points: Iterable[tuple[float, float]], class_: str) -> Markup:
    """Return an open path through the points."""
    return element("polyline", points=_points(points), class_=class_)


def polygon(points: Iterable[tuple[float, float]], class_: str) -> Markup:
    """Return a closed area."""
    return element("polygon", points=_points(points), class_=class_)


def spread(places: list[float], gap: float, low: float, high: float) -> list[float]:
    """Return the places moved apart to at least `gap`, order kept, inside [low, high]."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = [max(low, places[index]) for index in order]
    for position, (before, here) in enumerate(pairwise(range(len(moved))), 1):
        moved[position] = max(moved[here], moved[before] + gap)
    ceiling = high
    for position in reversed(range(len(moved))):
        moved[position] = min(moved[position], ceiling)
        ceiling = moved[position] - gap
    result = [0.0] * len(places)
    for index, place in zip(order, moved, strict=True):
        result[index] = max(low, place)
    return result


def short(value: float) -> str:
    """Return a coordinate with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{short(x)},{short(y)}" for x, y in points)


def _attribute(value: object) -> str:
    return short(value) if isinstance(value, float) else str(value)
