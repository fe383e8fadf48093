"""The data-flow diagram as SVG by hand: zones dashed, flows numbered, no script, no reference.

It is a pure function of the system: boxes on a grid, zones around them, straight arrows, each with
a number where it covers nothing else. Units are pixels of the picture's own view box. Colours are
the page's own, so the picture follows light and dark; a page restyles it by classes.
"""

import math
import textwrap
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

from purpleteam.threats.model import Element, SystemModel

Point = tuple[float, float]
Style = dict[str, str | float]

WIDTH, HEIGHT, COLUMN, ROW = 148.0, 58.0, 222.0, 132.0
PADDING, TITLE, MARGIN, LINE = 22.0, 20.0, 12.0, 20.0
BADGE, HEAD, CORNER, WRAP = 11.0, 9.0, 20.0, 18
APART = 15.0  # half the distance between two arrows that join the same two elements
LEGEND_COLUMNS = 4
BADGE_SHARES = (0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74)
"""Where along an arrow its number may stand, the best first: where it covers nothing else."""


@dataclass(frozen=True)
class Box:
    """A rectangle by its corner and size."""

    x: float
    y: float
    width: float
    height: float

    @property
    def centre(self) -> Point:
        return self.x + self.width / 2, self.y + self.height / 2

    def contains(self, x: float, y: float, margin: float) -> bool:
        """Return whether a point lies in the box or within `margin` of it."""
        inside_x = self.x - margin < x < self.x + self.width + margin
        return inside_x and self.y - margin < y < self.y + self.height + margin


class Arrow(NamedTuple):
    """A straight line from border to border, with a place for its number."""

    start: Point
    end: Point
    badge: Point


class Layout(NamedTuple):
    """The places of everything; arrows are in the order of the system's flows."""

    elements: dict[str, Box]
    zones: dict[str, Box]
    arrows: list[Arrow]
    width: float
    height: float


def lay_out(system: SystemModel) -> Layout:
    """Return where every zone, element and flow of the system lies."""
    left, top = MARGIN + PADDING, MARGIN + PADDING + TITLE
    elements = {
        name: Box(left + column * COLUMN, top + row * ROW, WIDTH, HEIGHT)
        for name, (column, row) in _places(system).items()
    }
    zones: dict[str, Box] = {}
    for zone in system.zones:
        if boxes := [elements[part.id] for part in system.elements if part.zone == zone.id]:
            x = min(box.x for box in boxes) - PADDING
            y = min(box.y for box in boxes) - PADDING - TITLE
            right = max(box.x + box.width for box in boxes) + PADDING
            bottom = max(box.y + box.height for box in boxes) + PADDING
            zones[zone.id] = Box(x, y, right - x, bottom - y)
    pairs = [frozenset((flow.source, flow.target)) for flow in system.flows]
    arrows: list[Arrow] = []
    for flow, pair in zip(system.flows, pairs, strict=True):
        shift = APART if pairs.count(pair) > 1 else 0.0
        start, end = _line(elements[flow.source], elements[flow.target], shift)
        points = [
            (start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1]))
            for share in BADGE_SHARES
        ]
        free = [
            point
            for point in points
            if not any(math.dist(point, arrow.badge) < 2.5 * BADGE for arrow in arrows)
            and not any(box.contains(*point, BADGE) for box in elements.values())
        ]
        arrows.append(Arrow(start, end, (free or points)[0]))
    width = max(box.x + box.width for box in zones.values()) + MARGIN
    height = max(box.y + box.height for box in zones.values()) + MARGIN
    return Layout(elements, zones, arrows, width, height)


def _places(system: SystemModel) -> dict[str, tuple[int, int]]:
    """Return column and row of every element; those that state none get a column per zone.

    Columns and rows in which nothing is are closed up.
    """
    places = {part.id: part.at for part in system.elements if part.at is not None}
    first_free = max((column for column, _ in places.values()), default=-1) + 1
    waiting: dict[str, list[str]] = {}
    for part in system.elements:
        if part.at is None:
            waiting.setdefault(part.zone, []).append(part.id)
    for number, members in enumerate(waiting.values()):
        places |= {name: (first_free + number, row) for row, name in enumerate(members)}
    columns, rows = (sorted({place[axis] for place in places.values()}) for axis in (0, 1))
    return {name: (columns.index(x), rows.index(y)) for name, (x, y) in places.items()}


def _line(source: Box, target: Box, shift: float) -> tuple[Point, Point]:
    """Return the line between the borders of two boxes, moved `shift` to its right-hand side."""
    (x0, y0), (x1, y1) = source.centre, target.centre
    length = math.hypot(x1 - x0, y1 - y0) or 1.0
    along = (x1 - x0) / length, (y1 - y0) / length
    across = -along[1] * shift, along[0] * shift
    start = _border(source, along, across)
    return start, _border(target, (-along[0], -along[1]), across)


def _border(box: Box, along: Point, across: Point) -> Point:
    """Return where a ray from the centre of the box, moved by `across`, leaves it."""
    reach = min(
        (half - math.copysign(1.0, step) * moved) / abs(step) if step else math.inf
        for half, step, moved in zip((box.width / 2, box.height / 2), along, across, strict=True)
    )
    x, y = box.centre[0] + across[0], box.centre[1] + across[1]
    return x + along[0] * reach, y + along[1] * reach


def draw(system: SystemModel) -> str:
    """Return the picture of a system."""
    layout = lay_out(system)
    columns = max(1, min(LEGEND_COLUMNS, int(layout.width // COLUMN)))
    rows = math.ceil(len(system.flows) / columns)
    title = escape(f"Data-flow diagram: {system.name}")
    described, arrows, badges, legend = [], [], [], []
    for number, (flow, arrow) in enumerate(zip(system.flows, layout.arrows, strict=True), 1):
        ends = f"from {system.names[flow.source]} to {system.names[flow.target]}"
        described.append(f"{number}. {flow.name} {ends}")
        crosses = system.crosses(flow) is not None
        arrows.append(_arrow(arrow, crosses))
        badges.append(_number(number, arrow.badge, crosses))
        column, place = divmod(number - 1, rows)
        x = MARGIN + BADGE + (layout.width - 2 * MARGIN) / columns * column
        y = layout.height + 1.5 * LINE + 1.35 * LINE * place
        text = _tag("text", escape(flow.name), x=x + 2 * BADGE, y=y + 4.5)
        legend += [_number(number, (x, y), crosses), text]
    told = (
        "A filled number crosses a trust boundary (dashed). "
        "Square: external. Round: process. Open-sided: store."
    )
    bottom = layout.height + 1.35 * LINE * rows
    legend.append(_tag("text", told, x=MARGIN, y=bottom + 1.8 * LINE, font_size="12"))
    zones = {zone.id: zone.name for zone in system.zones}
    parts = [
        _tag("title", title),
        _tag("desc", escape("; ".join(described))),
        *(_zone(zones[zone], box) for zone, box in layout.zones.items()),
        *arrows,
        *(_element(element, layout.elements[element.id]) for element in system.elements),
        *badges,
        _tag("g", "".join(legend), class_="dfd-legend"),
    ]
    head = (
        f'<svg class="dfd" xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="0 0 {_n(layout.width)} {_n(bottom + 2.4 * LINE)}" aria-label="{title}" '
        'font-family="system-ui, sans-serif" font-size="13" fill="currentColor">'
    )
    return "\n".join([head, *parts, "</svg>\n"])


def _zone(name: str, box: Box) -> str:
    fill: Style = {"rx": "14", "fill": "currentColor", "fill_opacity": "0.035"}
    dashes: Style = {"stroke": "currentColor", "stroke_width": 1.4, "stroke_dasharray": "7 5"}
    edge = _tag("rect", class_="dfd-zone", **vars(box), **fill, **dashes)
    place = {"x": box.x + 14, "y": box.y + TITLE}
    return edge + _tag("text", escape(name), class_="dfd-zone-name", **place, font_weight="600")


def _element(element: Element, box: Box) -> str:
    (middle, centre), kind = box.centre, f"dfd-{element.kind}"
    stroke: Style = {"stroke": "currentColor", "stroke_width": 1.6}
    lines = textwrap.wrap(element.name, WRAP, break_long_words=False, break_on_hyphens=False)
    first = centre + 4.5 - 8 * (len(lines) - 1)
    text = "".join(
        _tag("tspan", escape(line), x=middle, y=first + 16 * number)
        for number, line in enumerate(lines)
    )
    if element.kind == "store":
        shape = _tag("rect", class_=kind, **vars(box), fill="Canvas")
        for y in (box.y, box.y + box.height):
            shape += _tag("path", class_=kind, d=f"M{_n(box.x)} {_n(y)}h{_n(box.width)}", **stroke)
    else:
        radius = CORNER if element.kind == "process" else 0.0
        shape = _tag("rect", class_=kind, **vars(box), rx=radius, fill="Canvas", **stroke)
    return shape + _tag("text", text, class_="dfd-name", text_anchor="middle", font_weight="500")


def _arrow(arrow: Arrow, crossing: bool) -> str:
    (x0, y0), (x1, y1) = arrow.start, arrow.end
    angle = math.atan2(y1 - y0, x1 - x0)
    turned = (angle + turn for turn in (0.42, -0.42))
    wings = [(x1 - HEAD * math.cos(turn), y1 - HEAD * math.sin(turn)) for turn in turned]
    head = " ".join(f"{_n(x)},{_n(y)}" for x, y in [(x1, y1), *wings])
    stroke: Style = {"stroke": "currentColor", "stroke_width": 2.0 if crossing else 1.3}
    line = _tag("path", d=f"M{_n(x0)} {_n(y0)}L{_n(x1)} {_n(y1)}", fill="none", **stroke)
    name = "dfd-flow dfd-crossing" if crossing else "dfd-flow"
    return _tag("g", line + _tag("polygon", points=head), class_=name)


def _number(number: int, place: Point, crossing: bool) -> str:
    x, y = place
    disc, ink = ("currentColor", "Canvas") if crossing else ("Canvas", "currentColor")
    stroke: Style = {"stroke": "currentColor", "stroke_width": 1.3}
    circle = _tag("circle", cx=x, cy=y, r=BADGE, fill=disc, **stroke)
    font = {"text_anchor": "middle", "font_size": "12", "font_weight": "600"}
    text = _tag("text", str(number), x=x, y=y + 4, **font, fill=ink)
    return _tag("g", circle + text, class_="dfd-number")


def _tag(tag: str, inside: str = "", /, **attributes: str | float) -> str:
    """Return an element of the picture; `font_size` is the attribute `font-size`."""
    told = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{value if isinstance(value, str) else _n(value)}"'
        for name, value in attributes.items()
    )
    return f"<{tag}{told}>{inside}</{tag}>" if inside else f"<{tag}{told}/>"


def _n(number: float) -> str:
    """Return a coordinate with one decimal at most, so that the text is stable and short."""
    return f"{number:.1f}".removesuffix(".0")
