"""Drawings as inline SVG, and those of other rooms cut down to what can only draw.

Everything is escaped. Colours and fonts come from the page's style sheet by class, so a drawing
follows light, dark and print. An axis tick has the class `tick`; any other figure carries the id
of its record.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import pairwise

from markupsafe import Markup, escape

from purpleteam.report.view import Number

LETTER = 7.5
"""About the width of a letter of a label, in the units of a drawing."""


def element(name: str, *children: Markup | str, **attributes: object) -> Markup:
    """Return an element; `class_` and `data_record` become `class` and `data-record`."""
    pairs = [
        f' {key.rstrip("_").replace("_", "-")}="{escape(_short(value))}"'
        if isinstance(value, float)
        else f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value not in (None, "")
    ]
    inside = "".join(map(escape, children))
    drawn = f"<{name}{''.join(pairs)}>{inside}</{name}>"
    return Markup(drawn)  # noqa: S704  # purple: allow B704 until 2027-11-30 as it is escaped above


def _drawing(
    title: str, about: str, size: tuple[int, int], parts: Iterable[Markup], class_: str = "chart"
) -> Markup:
    named = (element("title", title), element("desc", about))
    place = {"viewBox": f"0 0 {size[0]} {size[1]}", "width": size[0], "height": size[1]}
    said = {"role": "img", "aria_label": f"{title}. {about}"}
    return element("svg", *named, *parts, class_=class_, **place, **said)


def _text(content: str, x: float, y: float, class_: str, record: str = "") -> Markup:
    return element("text", content, x=x, y=y, class_=class_, data_record=record)


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def _shape(name: str, points: Iterable[tuple[float, float]], class_: str) -> Markup:
    places = " ".join(f"{_short(x)},{_short(y)}" for x, y in points)
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


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Return where a value from `low` to `high` lies between the places `start` and `end`."""

    def place(value: float) -> float:
        share = min(1.0, max(0.0, (value - low) / ((high - low) or 1.0)))
        return start + share * (end - start)

    return place


def _decades(count: int, start: float, end: float) -> Callable[[float], float]:
    """Return where a value lies on that many powers of ten up to 1; what is less lies at their end.

    Zero has no place of its own on such a scale.
    """
    place = _scale(-count, 0, start, end)
    return lambda value: place(math.log10(max(value, 10.0**-count)))


Bar = tuple[Number, str, str]
"""A number, its class of the page, and a name, where bars of a group differ by kind."""
BARS, LEFT_OF_BARS, TOP_OF_BARS = 520, 4, 10
LABEL, THICK, GAP, GROUP_GAP = 22, 20, 4, 14


def bars(title: str, about: str, groups: Sequence[tuple[str, Sequence[Bar]]]) -> Markup:
    """Return groups of horizontal bars over a scale from zero to 100 %."""
    every = [bar for _, group in groups for bar in group]
    longest = max((len(number.text) + len(name) + 2 for number, _, name in every), default=0)
    left, x_of = LEFT_OF_BARS, _scale(0, 1, LEFT_OF_BARS, BARS - max(84, round(LETTER * longest)))
    parts: list[Markup] = []
    y = float(TOP_OF_BARS)
    for label, group in groups:
        record = group[0][0].records[0] if group else ""
        parts.append(_text(label, left + 8, y + LABEL - 7, "group", record))
        y += LABEL
        for number, style, name in group:
            (record, *_), middle, end = number.records, y + THICK / 2, x_of(number.value)
            low, high = map(x_of, number.span)
            behind = max(end, high) + 8
            size = {"x": left, "y": y, "width": max(1.5, end - left), "height": THICK, "rx": 2}
            drawn = [
                element("rect", **size, class_=f"bar {style}"),
                _line(low, middle, high, middle, "whisker"),
                _line(low, middle - 4, low, middle + 4, "whisker"),
                _line(high, middle - 4, high, middle + 4, "whisker"),
                _text(number.text, behind, middle + 5, f"value {style}", record),
            ]
            if name:
                inside = min(end, low) - left > 16 + LETTER * len(name)
                x = left + 8 if inside else behind + 8 + LETTER * len(number.text)
                where = "inside" if inside else "behind"
                drawn.append(_text(name, x, middle + 4, f"{where} {style}"))
            parts.append(element("g", *drawn, data_record=record))
            y += THICK + GAP
        y += GROUP_GAP - GAP
    bottom = y - GROUP_GAP + 8
    grid = []
    for step in range(5):
        x = x_of(step / 4)
        grid.append(_line(x, TOP_OF_BARS, x, bottom, "grid" if step else "axis"))
        grid.append(_text(f"{25 * step} %", x, bottom + 18, "tick middle" if step else "tick"))
    return _drawing(title, about, (BARS, round(bottom + 30)), [*grid, *parts], "bars")


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line: a label, its numbers by x in order, and which of the page's colours it has."""

    label: str
    points: dict[float, Number]
    colour: int


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
    decades: int | None = None,
) -> Markup:
    """Return a line chart `over` a range, or from zero to the largest value where it is None.

    Each line carries its label where it ends; the drawing grows until no two labels touch. With
    `decades` both axes are logarithmic, that many powers of ten up to 1.
    """
    drawn = [curve for curve in series if curve.points]
    xs = sorted({x for curve in drawn for x in curve.points})
    height = max(height, LABEL_GAP * len(drawn) + TOP + BOTTOM)
    room = max(96, round(LETTER * max((len(curve.label) for curve in drawn), default=0)) + 22)
    spans = [end for curve in drawn for point in curve.points.values() for end in point.span]
    floor, ceiling = over or (0.0, _ceiling(max(filter(math.isfinite, spans), default=1.0)))
    right, base = CHART - min(room, 300), height - BOTTOM
    x_of = _scale(min(xs, default=0.0), max(xs, default=1.0), LEFT, right)
    y_of = _scale(floor, ceiling, base, TOP)
    marks = [floor + (ceiling - floor) * step / 4 for step in range(5)]
    if decades:
        x_of, y_of = _decades(decades, LEFT, right), _decades(decades, base, TOP)
        xs = marks = [10.0**power for power in range(-decades, 1)]
    parts, bands, strokes = [], [], []
    for step, value in enumerate(marks):
        parts.append(_line(LEFT, y_of(value), right, y_of(value), "grid" if step else "axis"))
        label = f"{100 * value:.3g} %" if percent else _short(value)
        parts.append(_text(label, LEFT - 8, y_of(value) + 4, "tick end"))
    last = -math.inf
    for value in xs:
        label = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
        if x_of(value) - last >= LETTER * len(label) + 6:
            last = x_of(value)
            parts.append(_line(last, base, last, base + 5, "axis"))
            parts.append(_text(label, last, base + 20, "tick middle"))
    parts.append(_text(x_label, (LEFT + right) / 2, height - 8, "axis-label middle"))
    parts.append(_text(y_label, LEFT, TOP - 7, "axis-label"))
    for curve in drawn:
        points, colour = curve.points.items(), curve.colour
        # of a single image nothing is known: its interval goes to the ends of the drawing
        upper = [(x_of(x), y_of(min(number.span[1], ceiling))) for x, number in points]
        lower = [(x_of(x), y_of(max(number.span[0], floor))) for x, number in reversed(points)]
        bands.append(_shape("polygon", [*upper, *lower], f"band series-{colour}"))
        places = [(x_of(x), y_of(number.value)) for x, number in points]
        style = f"stroke series-{colour} dash-{colour % MARKERS}"
        stroke, label = [_shape("polyline", places, style)], element("title", curve.label)
        for (_, number), (x, y) in zip(points, places, strict=True):
            if len(places) <= MOST:
                marker = _marker(colour, x, y)
                stroke.append(element("g", label, marker, data_record=number.records[0]))
        strokes.append(element("g", *stroke))
    parts += [*bands, *strokes]
    last_points = [list(curve.points.items())[-1] for curve in drawn]
    ends = [y_of(number.value) for _, number in last_points]
    moved = spread(ends, LABEL_GAP, TOP + 4, base)
    for curve, (at, number), end, place in zip(drawn, last_points, ends, moved, strict=True):
        x, record, colour = x_of(at), number.records[0], curve.colour
        if place != end or x < right - 1:
            parts.append(_line(x + 6, end, right + 12, place, f"leader series-{colour}"))
        parts.append(_text(curve.label, right + 15, place + 4, f"label series-{colour}", record))
    return _drawing(title, about, (CHART, height), parts)


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
    return _shape("polygon", corners, class_)


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
        _text("predicted class", left + size * CELL / 2, 16, "axis-label middle"),
        _text("true class", 4, top - 10, "axis-label"),
    ]
    for index, name in enumerate(classes):
        x = left + (index + 0.5) * CELL
        if aslant:
            turn = f"rotate(-40 {_short(x)} {top - 8})"
            parts.append(element("text", name, x=x, y=top - 8, class_="tick", transform=turn))
        else:
            parts.append(_text(name, x, top - 10, "tick middle"))
        parts.append(_text(name, left - 10, top + (index + 0.5) * CELL + 4, "tick end"))
    cells = []
    for i, counted in enumerate(counts):
        total = sum(counted) or 1
        for j, value in enumerate(counted):
            x, y = left + j * CELL, top + i * CELL
            depth = round(math.sqrt(value / total), 2)
            kind, class_ = ("right" if i == j else "wrong"), "count"
            class_ += " strong" if depth > 0.55 else "" if value else " nil"
            square: dict[str, object] = {"x": x, "y": y, "width": CELL - 2, "height": CELL - 2}
            square |= {"class_": kind, "fill_opacity": depth} if value else {"class_": "empty"}
            cells.append(element("rect", **square))
            cells.append(_text(str(value), x + CELL // 2 - 1, y + CELL // 2 + 4, class_))
    parts.append(element("g", *cells, data_record=record))
    width = left + size * CELL + 4 + (round(wide * 0.75) if aslant else 0)
    return _drawing(title, about, (width, top + size * CELL + 4), parts, class_="square")


WIDE = 76


def heat(
    title: str,
    about: str,
    rows: Sequence[str],
    columns: Sequence[str],
    numbers: Sequence[Sequence[Number | None]],
) -> Markup:
    """Return squares of fractions, darker where they are larger; what is missing stays empty."""
    left = max(64, round(LETTER * max(map(len, rows), default=1)) + 18)
    names = [name if len(name) * LETTER < WIDE else f"{name[: int(WIDE / LETTER) - 1]}…"
             for name in columns]  # fmt: skip
    parts = [
        _text(name, left + (place + 0.5) * WIDE, 18, "tick middle")
        for place, name in enumerate(names)
    ]
    for i, (name, line) in enumerate(zip(rows, numbers, strict=True)):
        y = 30 + i * CELL
        parts.append(_text(name, left - 10, y + CELL / 2 + 4, "tick end"))
        for j, number in enumerate(line):
            square: dict[str, object] = {"x": left + j * WIDE, "y": y}
            square |= {"width": WIDE - 2, "height": CELL - 2}
            if number is None:
                parts.append(element("rect", **square, class_="empty"))
                continue
            depth = round(min(1.0, max(0.0, number.value)), 2)
            class_ = "count strong" if depth > 0.55 else "count"
            middle = (left + (j + 0.5) * WIDE - 1, y + CELL // 2 + 4)
            shown = _text(number.text, *middle, class_)
            drawn = element("rect", **square, class_="right", fill_opacity=depth)
            parts.append(element("g", drawn, shown, data_record=number.records[0]))
    size = (left + len(columns) * WIDE + 4, 34 + len(rows) * CELL)
    return _drawing(title, about, size, parts, class_="square")


WORD = re.compile(r"[\w-]+")
SHAPES = "svg g title desc path rect circle ellipse line polyline polygon text tspan"
ELEMENTS = WORD.findall(SHAPES)
"""The only elements that a foreign drawing keeps, and its only attributes: no script, link, style,
animation or foreign object, and nothing that names another file."""
ATTRIBUTES = WORD.findall(
    "aria-label class cx cy d dx dy fill fill-opacity fill-rule font-family font-size "
    "font-style font-weight height letter-spacing opacity points r role rx ry stroke "
    "stroke-dasharray stroke-linecap stroke-linejoin stroke-opacity stroke-width text-anchor "
    "transform viewbox width x x1 x2 y y1 y2"
)


def only_drawing(source: str) -> Markup:
    """Return the first SVG image in the text with everything else left out; empty without one."""
    cleaner = _Cleaner()
    cleaner.feed(source)
    cleaner.close()
    ends = [Markup("</{}>").format(name) for name in reversed(cleaner.open)]
    return Markup("").join([*cleaner.parts, *ends])


class _Cleaner(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[Markup] = []
        self.open: list[str] = []
        self._dropped: list[str] = []
        self._done = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._done or (not self.open and tag != "svg"):
            return
        if self._dropped or tag not in ELEMENTS:
            self._dropped.append(tag)
            return
        kept = (
            Markup(' {}="{}"').format("viewBox" if name == "viewbox" else name, value or "")
            for name, value in attrs
            if name in ATTRIBUTES and "url(" not in (value or "").lower()
        )
        self.parts.append(Markup("<{}{}>").format(tag, Markup("").join(kept)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._dropped:
            if tag in self._dropped:
                del self._dropped[self._dropped.index(tag) :]
        elif self.open and self.open[-1] == tag:
            self.parts.append(Markup("</{}>").format(self.open.pop()))
            self._done = not self.open

    def handle_data(self, data: str) -> None:
        if self.open and not self._dropped:
            self.parts.append(Markup("{}").format(data))
