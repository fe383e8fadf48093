"""Drawings as inline SVG, written by hand: they take their colours from the page and print.

Everything is escaped, nothing carries a style of its own: colours and fonts come from the page's
style sheet by class, so a drawing follows light, dark and print. Text that is an axis tick has
the class `tick`; any other figure carries the id of its record.
"""

import math
from collections.abc import Callable, Iterable, Sequence
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
    inside = Markup("").join(map(escape, children))
    return Markup("<{0}{1}>{2}</{0}>").format(name, Markup("").join(pairs), inside)


def drawing(
    title: str, about: str, size: tuple[int, int], parts: Iterable[Markup], class_: str = "chart"
) -> Markup:
    """Return a whole SVG image with its title, and what it is about for those who cannot see it."""
    named = (element("title", title), element("desc", about))
    place = {"viewBox": f"0 0 {size[0]} {size[1]}", "width": size[0], "height": size[1]}
    said = {"role": "img", "aria_label": f"{title}. {about}"}
    return element("svg", *named, *parts, class_=class_, **place, **said)


def text(content: str, x: float, y: float, class_: str, record: str = "") -> Markup:
    """Return a line of text at a place; `record` names where a figure in it comes from."""
    return element("text", content, x=x, y=y, class_=class_, data_record=record)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def shape(name: str, points: Iterable[tuple[float, float]], class_: str) -> Markup:
    """Return a `polyline` or a `polygon` through the points."""
    places = " ".join(f"{short(x)},{short(y)}" for x, y in points)
    return element(name, points=places, class_=class_)


def spread(places: list[float], gap: float, low: float, high: float) -> list[float]:
    """Return the places moved apart to at least `gap`, order kept, inside [low, high]."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = [max(low, place) for place in places]
    for before, here in pairwise(order):
        moved[here] = max(moved[here], moved[before] + gap)
    for index in reversed(order):
        moved[index] = min(moved[index], high)
        high = moved[index] - gap
    return [max(low, place) for place in moved]


def short(value: float) -> str:
    """Return a coordinate with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Return where a value from `low` to `high` lies between the places `start` and `end`."""

    def place(value: float) -> float:
        share = min(1.0, max(0.0, (value - low) / ((high - low) or 1.0)))
        return start + share * (end - start)

    return place


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A value with its interval (equal ends where it has none): a bar, or a point of a line."""

    value: float
    low: float
    high: float
    record: str
    x: float = 0.0
    """Of a point."""
    text: str = ""
    """Written at the end of a bar; `style` is its class of the page."""
    style: str = "plain"
    name: str = ""
    """Written inside or behind a bar, where bars of a group differ by kind."""


BARS, LEFT_OF_BARS, TOP_OF_BARS = 520, 4, 10
LABEL, THICK, GAP, GROUP_GAP = 22, 20, 4, 14


def bars(title: str, about: str, groups: Sequence[tuple[str, Sequence[Mark]]]) -> Markup:
    """Return groups of horizontal bars over a scale from zero to 100 %."""
    every = [bar for _, group in groups for bar in group]
    longest = max((len(bar.text) + len(bar.name) + 2 for bar in every), default=0)
    x_of = scale(0.0, 1.0, LEFT_OF_BARS, BARS - max(84, round(LETTER * longest)))
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
        x = x_of(step / 4)
        grid.append(line(x, TOP_OF_BARS, x, bottom, "grid" if step else "axis"))
        grid.append(text(f"{25 * step} %", x, bottom + 18, "tick middle" if step else "tick"))
    return drawing(title, about, (BARS, round(bottom + 30)), [*grid, *parts], "bars")


def _bar(bar: Mark, y: float, end: float, low: float, high: float) -> Markup:
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
class Series:
    """One line: a label and its points, in order of x."""

    label: str
    points: tuple[Mark, ...]
    colour: int
    """Which of the page's series colours; a model keeps its own from figure to figure."""


CHART, LEFT, TOP, BOTTOM, HEIGHT = 660, 52, 18, 48, 340
LABEL_GAP = 17
MARKERS = 4
"""Number of marker shapes and dash patterns; a series differs by more than its colour."""
MOST = 12
"""Lines of more points have no markers."""


def curves(
    title: str,
    about: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    over: tuple[float, float] | None = (0.0, 1.0),
    percent: bool = True,
    height: int = HEIGHT,
) -> Markup:
    """Return a line chart `over` a range, or from zero to the largest value where it is None.

    Each line carries its label where it ends; the drawing grows until no two labels touch.
    """
    drawn = [curve for curve in series if curve.points]
    every = [point for curve in drawn for point in curve.points]
    xs = sorted({point.x for point in every})
    height = max(height, LABEL_GAP * len(drawn) + TOP + BOTTOM)
    room = max(96, round(LETTER * max((len(curve.label) for curve in drawn), default=0)) + 22)
    floor, ceiling = over or (0.0, _ceiling(max((point.high for point in every), default=1.0)))
    right, base = CHART - min(room, 300), height - BOTTOM
    x_of = scale(min(xs, default=0.0), max(xs, default=1.0), LEFT, right)
    y_of = scale(floor, ceiling, base, TOP)
    parts, bands, strokes = [], [], []
    for step in range(5):
        value = floor + (ceiling - floor) * step / 4
        parts.append(line(LEFT, y_of(value), right, y_of(value), "grid" if step else "axis"))
        label = f"{100 * value:.3g} %" if percent else short(value)
        parts.append(text(label, LEFT - 8, y_of(value) + 4, "tick end"))
    last = -math.inf
    for value in xs:
        label = f"{value:.3g}"
        if x_of(value) - last >= LETTER * len(label) + 6:
            last = x_of(value)
            parts.append(line(last, base, last, base + 5, "axis"))
            parts.append(text(label, last, base + 20, "tick middle"))
    parts.append(text(x_label, (LEFT + right) / 2, height - 8, "axis-label middle"))
    parts.append(text(y_label, LEFT, TOP - 7, "axis-label"))
    for curve in drawn:
        upper = [(x_of(point.x), y_of(point.high)) for point in curve.points]
        lower = [(x_of(point.x), y_of(point.low)) for point in reversed(curve.points)]
        bands.append(shape("polygon", [*upper, *lower], f"band series-{curve.colour}"))
        places = [(x_of(point.x), y_of(point.value)) for point in curve.points]
        style = f"stroke series-{curve.colour} dash-{curve.colour % MARKERS}"
        stroke, label = [shape("polyline", places, style)], element("title", curve.label)
        if len(places) <= MOST:
            for point, (x, y) in zip(curve.points, places, strict=True):
                marker = _marker(curve.colour, x, y)
                stroke.append(element("g", label, marker, data_record=point.record))
        strokes.append(element("g", *stroke))
    parts += [*bands, *strokes]
    ends = [y_of(curve.points[-1].value) for curve in drawn]
    moved = spread(ends, LABEL_GAP, TOP + 4, base)
    for curve, end, place in zip(drawn, ends, moved, strict=True):
        x, record, colour = x_of(curve.points[-1].x), curve.points[-1].record, curve.colour
        if place != end or x < right - 1:
            parts.append(line(x + 6, end, right + 12, place, f"leader series-{colour}"))
        parts.append(text(curve.label, right + 15, place + 4, f"label series-{colour}", record))
    return drawing(title, about, (CHART, height), parts)


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


def _ceiling(peak: float) -> float:
    """Return the next round number at or above the peak: a few times a power of ten."""
    if peak <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(peak))
    return next(power * step for step in (1, 2, 3, 4, 6, 8, 10, 20) if power * step >= peak)


CELL = 40


def heatmap(
    title: str, about: str, counts: Sequence[Sequence[int]], classes: Sequence[str], record: str
) -> Markup:
    """Return a confusion matrix; a cell is as dark as the root of its share of the row's images.

    Names that are wider than a cell stand aslant above their column.
    """
    size, wide = len(counts), LETTER * max(map(len, classes), default=1)
    aslant = wide > CELL
    left, top = max(64, round(wide) + 18), 50 + (round(wide * 0.65) if aslant else 0)
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
    cells = []
    for i, counted in enumerate(counts):
        for j, value in enumerate(counted):
            x, y = left + j * CELL, top + i * CELL
            depth = round(math.sqrt(value / (sum(counted) or 1)), 2)
            kind, class_ = ("right" if i == j else "wrong"), "count"
            class_ += " strong" if depth > 0.55 else "" if value else " nil"
            square: dict[str, object] = {"x": x, "y": y, "width": CELL - 2, "height": CELL - 2}
            square |= {"class_": kind, "fill_opacity": depth} if value else {"class_": "empty"}
            cells.append(element("rect", **square))
            cells.append(text(str(value), x + CELL // 2 - 1, y + CELL // 2 + 4, class_))
    parts.append(element("g", *cells, data_record=record))
    width = left + size * CELL + 4 + (round(wide * 0.75) if aslant else 0)
    return drawing(title, about, (width, top + size * CELL + 4), parts, class_="square")
