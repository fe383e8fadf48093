"""Drawings as inline SVG, written by hand: they take their colours from the page and print.

Everything is escaped, nothing carries a style of its own: colours and fonts come from the page's
style sheet by class, so a drawing follows light, dark and print. Text that is an axis tick has
the class `tick`; any other figure carries the id of its record.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

LETTER = 7.5
"""About the width of a letter of a label, in the units of a drawing."""


def element(name: str, *children: Markup | str, **attributes: object) -> Markup:
    """Return an element; `class_` and `data_record` become `class` and `data-record`."""
    pairs = (
        Markup(' {}="{}"').format(
            key.rstrip("_").replace("_", "-"), short(value) if isinstance(value, float) else value
        )
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


def shape(name: str, points: Iterable[tuple[float, float]], class_: str) -> Markup:
    """Return a `polyline` or a `polygon` through the points."""
    return element(
        name, points=" ".join(f"{short(x)},{short(y)}" for x, y in points), class_=class_
    )


def spread(places: list[float], gap: float, low: float, high: float) -> list[float]:
    """Return the places moved apart to at least `gap`, order kept, inside [low, high]."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = [max(low, places[index]) for index in order]
    for before, here in pairwise(range(len(moved))):
        moved[here] = max(moved[here], moved[before] + gap)
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


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar with its interval: `style` is a class of the page, `text` is written at its end."""

    value: float
    low: float
    high: float
    text: str
    record: str
    style: str = "plain"
    name: str = ""
    """Written inside or behind the bar, where bars of a group differ by kind."""


BARS, LEFT_OF_BARS, TOP_OF_BARS = 520, 4, 10
LABEL, THICK, GAP, GROUP_GAP = 22, 20, 4, 14


def bars(
    title: str,
    description: str,
    groups: Sequence[tuple[str, Sequence[Bar]]],
    *,
    top: float = 1.0,
) -> Markup:
    """Return groups of horizontal bars over a scale from zero to `top`, shown in percent."""
    every = [bar for _, group in groups for bar in group]
    longest = max((len(bar.text) + len(bar.name) + 2 for bar in every), default=0)
    right = max(84, round(LETTER * longest))
    scale = BARS - LEFT_OF_BARS - right

    def x_of(value: float) -> float:
        return LEFT_OF_BARS + min(1.0, max(0.0, value / top)) * scale

    parts: list[Markup] = []
    y = float(TOP_OF_BARS)
    for label, group in groups:
        record = group[0].record if group else ""
        parts.append(text(label, LEFT_OF_BARS + 8, y + LABEL - 7, "group", record))
        y += LABEL
        for bar in group:
            parts.append(_bar(bar, y, x_of(bar.value), x_of(bar.low), x_of(bar.high)))
            y += THICK + GAP
        y += GROUP_GAP - GAP
    bottom = y - GROUP_GAP + 8
    grid = []
    for step in range(5):
        x = x_of(top * step / 4)
        label = f"{100 * top * step / 4:.{0 if top >= 0.2 else 1}f} %"
        grid.append(line(x, TOP_OF_BARS, x, bottom, "grid" if step else "axis"))
        grid.append(text(label, x, bottom + 18, "tick middle" if step else "tick"))
    return drawing(title, description, BARS, round(bottom + 30), [*grid, *parts], "bars")


def _bar(bar: Bar, y: float, end: float, low: float, high: float) -> Markup:
    middle, left = y + THICK / 2, LEFT_OF_BARS
    size = {"x": left, "y": y, "width": max(1.5, end - left), "height": THICK, "rx": 2}
    parts = [
        element("rect", **size, class_=f"bar {bar.style}"),
        line(low, middle, high, middle, "whisker"),
        line(low, middle - 4, low, middle + 4, "whisker"),
        line(high, middle - 4, high, middle + 4, "whisker"),
        text(bar.text, max(end, high) + 8, middle + 5, f"value {bar.style}", bar.record),
    ]
    if bar.name:
        inside = min(end, low) - left > 16 + LETTER * len(bar.name)
        x = left + 8 if inside else max(end, high) + 16 + LETTER * len(bar.text)
        where = "inside" if inside else "behind"
        parts.append(text(bar.name, x, middle + 4, f"{where} {bar.style}"))
    return element("g", *parts, data_record=bar.record)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value with its interval; equal ends where there is none."""

    x: float
    y: float
    low: float
    high: float
    record: str


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line: a label and its points, in order of x."""

    label: str
    points: tuple[Point, ...]
    colour: int
    """Which of the page's series colours; a model keeps its own from figure to figure."""


CHART, LEFT, TOP, BOTTOM, HEIGHT = 660, 52, 18, 48, 340
LABEL_GAP = 17
MARKERS = 4
"""Number of marker shapes and dash patterns; a series differs by more than its colour."""
MOST = 12
"""Lines of more points have no markers."""


@dataclass(frozen=True)
class _Frame:
    """Where values lie in a chart."""

    low: float
    high: float
    floor: float
    ceiling: float
    right: float
    base: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.low) / ((self.high - self.low) or 1.0) * (self.right - LEFT)

    def y(self, value: float) -> float:
        share = min(1.0, max(0.0, (value - self.floor) / (self.ceiling - self.floor)))
        return self.base - share * (self.base - TOP)


def curves(
    title: str,
    description: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    scale: tuple[float, float] | None = (0.0, 1.0),
    percent: bool = True,
    height: int = HEIGHT,
) -> Markup:
    """Return a line chart over `scale`, or from zero to the largest value where it is None.

    Each line carries its label where it ends; the drawing grows until no two labels touch.
    """
    drawn = [curve for curve in series if curve.points]
    xs = sorted({point.x for curve in drawn for point in curve.points})
    peak = max((point.high for curve in drawn for point in curve.points), default=1.0)
    height = max(height, LABEL_GAP * len(drawn) + TOP + BOTTOM)
    room = max(96, round(LETTER * max((len(curve.label) for curve in drawn), default=0)) + 22)
    floor, ceiling = scale or (0.0, _ceiling(peak))
    low, high = min(xs, default=0.0), max(xs, default=1.0)
    frame = _Frame(low, high, floor, ceiling, CHART - min(room, 300), height - BOTTOM)
    parts = _axes(frame, xs, percent)
    parts.append(text(x_label, (LEFT + frame.right) / 2, height - 8, "axis-label middle"))
    parts.append(text(y_label, LEFT, TOP - 7, "axis-label"))
    parts += [_band(curve, frame) for curve in drawn]
    parts += [_stroke(curve, frame) for curve in drawn]
    parts += _labels(drawn, frame)
    return drawing(title, description, CHART, height, parts)


def _axes(frame: _Frame, xs: Sequence[float], percent: bool) -> list[Markup]:
    parts = []
    for step in range(5):
        value = frame.floor + (frame.ceiling - frame.floor) * step / 4
        y = frame.y(value)
        parts.append(line(LEFT, y, frame.right, y, "grid" if step else "axis"))
        label = f"{100 * value:.3g} %" if percent else short(value)
        parts.append(text(label, LEFT - 8, y + 4, "tick end"))
    last = -math.inf
    for x in xs:
        label = f"{x:.3g}"
        if frame.x(x) - last >= LETTER * len(label) + 6:
            last = frame.x(x)
            parts.append(line(last, frame.base, last, frame.base + 5, "axis"))
            parts.append(text(label, last, frame.base + 20, "tick middle"))
    return parts


def _band(curve: Series, frame: _Frame) -> Markup:
    upper = [(frame.x(point.x), frame.y(point.high)) for point in curve.points]
    lower = [(frame.x(point.x), frame.y(point.low)) for point in reversed(curve.points)]
    return shape("polygon", [*upper, *lower], f"band series-{curve.colour}")


def _stroke(curve: Series, frame: _Frame) -> Markup:
    style = f"series-{curve.colour} dash-{curve.colour % MARKERS}"
    places = [(frame.x(point.x), frame.y(point.y)) for point in curve.points]
    marks = [
        element(
            "g",
            element("title", curve.label),
            _marker(curve.colour, x, y),
            data_record=point.record,
        )
        for point, (x, y) in zip(curve.points, places, strict=True)
    ]
    path = shape("polyline", places, f"stroke {style}")
    return element("g", path, *(marks if len(marks) <= MOST else ()))


def _marker(colour: int, x: float, y: float) -> Markup:
    class_ = f"marker series-{colour}"
    match colour % MARKERS:
        case 1:
            return element("rect", x=x - 3.5, y=y - 3.5, width=7, height=7, class_=class_)
        case 2:
            corners = [(x, y - 4.8), (x + 4.8, y + 3.6), (x - 4.8, y + 3.6)]
        case 3:
            corners = [(x, y - 5), (x + 5, y), (x, y + 5), (x - 5, y)]
        case _:
            return element("circle", cx=x, cy=y, r=4, class_=class_)
    return shape("polygon", corners, class_)


def _labels(drawn: Sequence[Series], frame: _Frame) -> list[Markup]:
    ends = [frame.y(curve.points[-1].y) for curve in drawn]
    parts = []
    for curve, end, place in zip(
        drawn, ends, spread(ends, LABEL_GAP, TOP + 4, frame.base), strict=True
    ):
        x, record = frame.x(curve.points[-1].x), curve.points[-1].record
        if place != end or x < frame.right - 1:
            leader = f"leader series-{curve.colour}"
            parts.append(line(x + 6, end, frame.right + 12, place, leader))
        parts.append(
            text(curve.label, frame.right + 15, place + 4, f"label series-{curve.colour}", record)
        )
    return parts


def _ceiling(peak: float) -> float:
    """Return the next round number at or above the peak: a few times a power of ten."""
    if peak <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(peak))
    return next(power * step for step in (1, 2, 3, 4, 6, 8, 10, 20) if power * step >= peak)


CELL = 40


def heatmap(
    title: str,
    description: str,
    counts: Sequence[Sequence[int]],
    classes: Sequence[str],
    record: str,
) -> Markup:
    """Return a confusion matrix; a cell is as dark as the root of its share of the row's images.

    Names that are wider than a cell stand aslant above their column.
    """
    size, longest = len(counts), max(map(len, classes), default=1)
    aslant = longest * LETTER > CELL
    left = max(64, round(LETTER * longest) + 18)
    top = 50 + (round(LETTER * longest * 0.65) if aslant else 0)
    extra = round(LETTER * longest * 0.75) if aslant else 0
    parts = [
        text("predicted class", left + size * CELL / 2, 16, "axis-label middle"),
        text("true class", 4, top - 10, "axis-label"),
    ]
    for index, name in enumerate(classes):
        x = left + (index + 0.5) * CELL
        if aslant:
            turn = f"rotate(-40 {short(x)} {top - 8})"
            parts.append(element("text", name, x=x, y=top - 8, class_="tick", transform=turn))
        else:
            parts.append(text(name, x, top - 10, "tick middle"))
        parts.append(text(name, left - 10, top + (index + 0.5) * CELL + 4, "tick end"))
    cells = [
        _cell(left + j * CELL, top + i * CELL, value, value / (sum(counted) or 1), right=i == j)
        for i, counted in enumerate(counts)
        for j, value in enumerate(counted)
    ]
    parts.append(element("g", *cells, data_record=record))
    width, height = left + size * CELL + 4 + extra, top + size * CELL + 4
    return drawing(title, description, width, height, parts, class_="square")


def _cell(x: int, y: int, value: int, share: float, *, right: bool) -> Markup:
    depth = round(math.sqrt(share), 2)
    square = element(
        "rect",
        x=x,
        y=y,
        width=CELL - 2,
        height=CELL - 2,
        class_=("right" if right else "wrong") if value else "empty",
        fill_opacity=depth if value else None,
    )
    class_ = ("count strong" if depth > 0.55 else "count") if value else "count nil"
    return square + text(str(value), x + CELL // 2 - 1, y + CELL // 2 + 4, class_)
