"""Lines with their intervals as bands, each labelled where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from purpleteam.report.figures.svg import (
    drawing,
    element,
    line,
    polygon,
    polyline,
    short,
    spread,
    text,
)

WIDTH, HEIGHT = 660, 340
LEFT, RIGHT, TOP, BOTTOM = 52, 150, 18, 48
MARKERS = 4
MOST = 12
"""Number of marker shapes and dash patterns; a series differs by more than its colour.

Lines of more than MOST points have no markers.
"""


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
    """Return a line chart over `scale`, or from zero to the largest value where it is None."""
    xs = sorted({point.x for one in series for point in one.points})
    peak = max((point.high for one in series for point in one.points), default=1.0)
    floor, ceiling = scale or (0.0, _ceiling(peak))
    frame = _Frame(
        low=min(xs, default=0.0),
        high=max(xs, default=1.0),
        floor=floor,
        ceiling=ceiling,
        height=height,
    )
    parts = [*_axes(frame, xs, x_label, y_label, percent)]
    parts += [_band(one, frame) for one in series]
    parts += [_stroke(one, frame) for one in series]
    parts += _labels(series, frame)
    return drawing(title, description, WIDTH, height, parts)


@dataclass(frozen=True)
class _Frame:
    low: float
    high: float
    floor: float
    ceiling: float
    height: int

    @property
    def base(self) -> int:
        return self.height - BOTTOM

    def x(self, value: float) -> float:
        span = (self.high - self.low) or 1.0
        return LEFT + (value - self.low) / span * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = min(1.0, max(0.0, (value - self.floor) / (self.ceiling - self.floor)))
        return self.base - share * (self.base - TOP)


def _axes(
    frame: _Frame, xs: Sequence[float], x_label: str, y_label: str, percent: bool
) -> list[Markup]:
    right = WIDTH - RIGHT
    parts = []
    for step in range(5):
        value = frame.floor + (frame.ceiling - frame.floor) * step / 4
        y = frame.y(value)
        parts.append(line(LEFT, y, right, y, "grid" if step else "axis"))
        label = f"{100 * value:.3g} %" if percent else short(value)
        parts.append(text(label, LEFT - 8, y + 4, "tick end"))
    for x in _sparse(xs, frame):
        parts.append(line(frame.x(x), frame.base, frame.x(x), frame.base + 5, "axis"))
        parts.append(text(f"{x:g}", frame.x(x), frame.base + 20, "tick middle"))
    parts.append(text(x_label, (LEFT + right) / 2, frame.height - 8, "axis-label middle"))
    parts.append(text(y_label, LEFT, TOP - 7, "axis-label"))
    return parts


def _sparse(xs: Sequence[float], frame: _Frame) -> list[float]:
    kept: list[float] = []
    for x in xs:
        if not kept or frame.x(x) - frame.x(kept[-1]) >= 28:
            kept.append(x)
    return kept


def _band(one: Series, frame: _Frame) -> Markup:
    upper = [(frame.x(point.x), frame.y(point.high)) for point in one.points]
    lower = [(frame.x(point.x), frame.y(point.low)) for point in reversed(one.points)]
    return polygon([*upper, *lower], f"band series-{one.colour}")


def _stroke(one: Series, frame: _Frame) -> Markup:
    style = f"series-{one.colour} dash-{one.colour % MARKERS}"
    places = [(frame.x(point.x), frame.y(point.y)) for point in one.points]
    marks = [
        element(
            "g", element("title", one.label), _marker(one.colour, x, y), data_record=point.record
        )
        for point, (x, y) in zip(one.points, places, strict=True)
    ]
    return element("g", polyline(places, f"stroke {style}"), *(marks if len(marks) <= MOST else ()))


def _marker(colour: int, x: float, y: float) -> Markup:
    class_ = f"marker series-{colour}"
    shape = colour % MARKERS
    if shape == 1:
        return element("rect", x=x - 3.5, y=y - 3.5, width=7, height=7, class_=class_)
    if shape == 2:
        return polygon([(x, y - 4.8), (x + 4.8, y + 3.6), (x - 4.8, y + 3.6)], class_)
    if shape == 3:
        return polygon([(x, y - 5), (x + 5, y), (x, y + 5), (x - 5, y)], class_)
    return element("circle", cx=x, cy=y, r=4, class_=class_)


def _labels(series: Sequence[Series], frame: _Frame) -> list[Markup]:
    drawn = [one for one in series if one.points]
    ends = [frame.y(one.points[-1].y) for one in drawn]
    places = spread(ends, 17, TOP + 4, frame.base)
    parts = []
    for one, end, place in zip(drawn, ends, places, strict=True):
        x, record = frame.x(one.points[-1].x), one.points[-1].record
        if place != end or x < WIDTH - RIGHT - 1:
            parts.append(line(x + 6, end, WIDTH - RIGHT + 12, place, f"leader series-{one.colour}"))
        parts.append(
            text(one.label, WIDTH - RIGHT + 15, place + 4, f"label series-{one.colour}", record)
        )
    return parts


def _ceiling(peak: float) -> float:
    """Return the next round number at or above the peak: a few times a power of ten."""
    if peak <= 0:
        return 1.0
    power = 1.0
    while power > peak:
        power /= 10
    while power * 10 <= peak:
        power *= 10
    return next(power * step for step in (1, 2, 3, 4, 6, 8, 10) if power * step >= peak)
