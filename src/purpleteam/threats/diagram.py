"""The data-flow diagram as SVG by hand: zones dashed, flows numbered, no script, no reference.

Everything is a pure function of the system: boxes on a grid, zones around them, straight arrows,
each with a number where it covers nothing else. Units are pixels of the picture's own view box.
Colours are `currentColor` and the page's own background, so the picture follows light and dark
as it is; a page may restyle it by these classes:

    dfd             the picture              dfd-flow, dfd-crossing      arrows
    dfd-zone        a trust boundary         dfd-number                  numbers of flows
    dfd-zone-name   its name                 dfd-name                    names of elements
    dfd-external, dfd-process, dfd-store     dfd-legend                  the list below
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from purpleteam.threats.model import Element, SystemModel

Point = tuple[float, float]

WIDTH, HEIGHT = 148.0, 58.0
COLUMN, ROW = 222.0, 132.0
PADDING = 22.0
TITLE = 20.0
MARGIN = 12.0
BADGE = 11.0
APART = 15.0
"""Half the distance between two arrows that join the same two elements."""
LINE = 20.0
LEGEND_COLUMNS = 4
HEAD = 9.0
CORNER = 20.0
WRAP = 18

STYLE = (
    "<style>svg{color-scheme:light dark;color:#2b2140;background:Canvas}"
    ".dfd-zone{stroke:#7c3aed}.dfd-zone-name{fill:#6d28d9}"
    "@media(prefers-color-scheme:dark){svg{color:#ece7f6}"
    ".dfd-zone{stroke:#a78bfa}.dfd-zone-name{fill:#c4b5fd}}</style>"
)
"""For a file of its own; inside a page the page decides."""


@dataclass(frozen=True)
class Box:
    """A rectangle by its corner and size."""

    x: float
    y: float
    width: float
    height: float

    @property
    def centre(self) -> Point:
        """The middle of the box."""
        return self.x + self.width / 2, self.y + self.height / 2

    def contains(self, x: float, y: float, margin: float) -> bool:
        """Return whether a point lies in the box or within `margin` of it."""
        inside_x = self.x - margin < x < self.x + self.width + margin
        return inside_x and self.y - margin < y < self.y + self.height + margin


@dataclass(frozen=True)
class Arrow:
    """A straight line from border to border, with a place for its number."""

    start: Point
    end: Point
    badge: Point


@dataclass(frozen=True)
class Layout:
    """The whole picture; arrows are in the order of the system's flows."""

    elements: dict[str, Box]
    zones: dict[str, Box]
    arrows: tuple[Arrow, ...]
    width: float
    height: float


def lay_out(system: SystemModel) -> Layout:
    """Return where every zone, element and flow of the system lies."""
    left, top = MARGIN + PADDING, MARGIN + PADDING + TITLE
    elements = {
        name: Box(left + column * COLUMN, top + row * ROW, WIDTH, HEIGHT)
        for name, (column, row) in _places(system).items()
    }
    zones = {
        zone.id: _around(elements[one.id] for one in system.elements if one.zone == zone.id)
        for zone in system.zones
        if any(one.zone == zone.id for one in system.elements)
    }
    return Layout(
        elements=elements,
        zones=zones,
        arrows=_arrows(system, elements),
        width=max(box.x + box.width for box in zones.values()) + MARGIN,
        height=max(box.y + box.height for box in zones.values()) + MARGIN,
    )


def _places(system: SystemModel) -> dict[str, tuple[int, int]]:
    """Return column and row of every element; those that state none get a column per zone.

    Columns and rows in which nothing is are closed up.
    """
    places = {one.id: one.at for one in system.elements if one.at is not None}
    first_free = max((column for column, _ in places.values()), default=-1) + 1
    waiting: dict[str, list[str]] = {}
    for one in system.elements:
        if one.at is None:
            waiting.setdefault(one.zone, []).append(one.id)
    for number, members in enumerate(waiting.values()):
        places |= {name: (first_free + number, row) for row, name in enumerate(members)}
    columns, rows = (sorted({place[axis] for place in places.values()}) for axis in (0, 1))
    return {name: (columns.index(x), rows.index(y)) for name, (x, y) in places.items()}


def _around(members: Iterable[Box]) -> Box:
    boxes = list(members)
    left = min(box.x for box in boxes) - PADDING
    top = min(box.y for box in boxes) - PADDING - TITLE
    right = max(box.x + box.width for box in boxes) + PADDING
    bottom = max(box.y + box.height for box in boxes) + PADDING
    return Box(left, top, right - left, bottom - top)


def _arrows(system: SystemModel, elements: dict[str, Box]) -> tuple[Arrow, ...]:
    pairs = [frozenset((flow.source, flow.target)) for flow in system.flows]
    arrows: list[Arrow] = []
    for flow, pair in zip(system.flows, pairs, strict=True):
        shift = APART if pairs.count(pair) > 1 else 0.0
        start, end = _line(elements[flow.source], elements[flow.target], shift)
        badge = _free_place(start, end, arrows, elements.values())
        arrows.append(Arrow(start, end, badge))
    return tuple(arrows)


def _line(source: Box, target: Box, shift: float) -> tuple[Point, Point]:
    """Return the line between two boxes, moved `shift` to its right-hand side."""
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


def _free_place(start: Point, end: Point, others: Iterable[Arrow], boxes: Iterable[Box]) -> Point:
    """Return the point nearest the middle of the line where a number covers nothing else."""
    taken, solid = [arrow.badge for arrow in others], list(boxes)
    shares = (0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74)
    points = [
        (start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1]))
        for share in shares
    ]
    for point in points:
        near = any(math.dist(point, other) < 2.5 * BADGE for other in taken)
        if not near and not any(box.contains(*point, BADGE) for box in solid):
            return point
    return points[0]


def draw(system: SystemModel, *, standalone: bool = False) -> str:
    """Return the picture of a system, with its style where it is to be a file of its own."""
    layout = lay_out(system)
    rows = math.ceil(len(system.flows) / _legend_columns(layout))
    height = layout.height + 2.4 * LINE + 1.35 * LINE * rows
    title = f"Data-flow diagram: {system.name}"
    described = "; ".join(
        f"{number}. {flow.name} from {system.names[flow.source]} to {system.names[flow.target]}"
        for number, flow in enumerate(system.flows, 1)
    )
    crossing = [system.crosses(flow) is not None for flow in system.flows]
    parts = [
        f'<svg class="dfd" xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="0 0 {_n(layout.width)} {_n(height)}" aria-label="{escape(title)}" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="currentColor">',
        f"<title>{escape(title)}</title>",
        f"<desc>{escape(described)}</desc>",
        STYLE if standalone else "",
        *(
            _zone(zone.name, layout.zones[zone.id])
            for zone in system.zones
            if zone.id in layout.zones
        ),
        *map(_arrow, layout.arrows, crossing),
        *(_element(element, layout.elements[element.id]) for element in system.elements),
        *(
            _number(number, arrow.badge, crosses)
            for number, (arrow, crosses) in enumerate(zip(layout.arrows, crossing, strict=True), 1)
        ),
        _legend(system, layout),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _zone(name: str, box: Box) -> str:
    return (
        f'<rect class="dfd-zone" {_rect(box)} rx="14" fill="currentColor" fill-opacity="0.035" '
        f'stroke="currentColor" stroke-width="1.4" stroke-dasharray="7 5"/>'
        f'<text class="dfd-zone-name" x="{_n(box.x + 14)}" y="{_n(box.y + TITLE)}" '
        f'font-weight="600">{escape(name)}</text>'
    )


def _element(element: Element, box: Box) -> str:
    middle, centre = box.centre
    lines = _wrap(element.name)
    first = centre + 4.5 - 8 * (len(lines) - 1)
    text = "".join(
        f'<tspan x="{_n(middle)}" y="{_n(first + 16 * number)}">{escape(line)}</tspan>'
        for number, line in enumerate(lines)
    )
    return (
        f"{_shape(element.kind, box)}"
        f'<text class="dfd-name" text-anchor="middle" font-weight="500">{text}</text>'
    )


def _shape(kind: str, box: Box) -> str:
    if kind == "store":
        edges = "".join(
            f'<path class="dfd-store" d="M{_n(box.x)} {_n(y)}h{_n(box.width)}" '
            f'stroke="currentColor" stroke-width="1.6"/>'
            for y in (box.y, box.y + box.height)
        )
        return f'<rect class="dfd-store" {_rect(box)} fill="Canvas"/>{edges}'
    radius = CORNER if kind == "process" else 0.0
    return (
        f'<rect class="dfd-{kind}" {_rect(box)} rx="{_n(radius)}" fill="Canvas" '
        f'stroke="currentColor" stroke-width="1.6"/>'
    )


def _arrow(arrow: Arrow, crossing: bool) -> str:
    (x0, y0), (x1, y1) = arrow.start, arrow.end
    angle = math.atan2(y1 - y0, x1 - x0)
    wings = [
        (x1 - HEAD * math.cos(angle + turn), y1 - HEAD * math.sin(angle + turn))
        for turn in (0.42, -0.42)
    ]
    head = " ".join(f"{_n(x)},{_n(y)}" for x, y in [(x1, y1), *wings])
    name, width = ("dfd-flow dfd-crossing", 2) if crossing else ("dfd-flow", 1.3)
    return (
        f'<g class="{name}"><path d="M{_n(x0)} {_n(y0)}L{_n(x1)} {_n(y1)}" fill="none" '
        f'stroke="currentColor" stroke-width="{width}"/><polygon points="{head}"/></g>'
    )


def _number(number: int, place: Point, crossing: bool) -> str:
    x, y = place
    disc, ink = ("currentColor", "Canvas") if crossing else ("Canvas", "currentColor")
    return (
        f'<g class="dfd-number"><circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(BADGE)}" fill="{disc}" '
        f'stroke="currentColor" stroke-width="1.3"/><text x="{_n(x)}" y="{_n(y + 4)}" '
        f'text-anchor="middle" font-size="12" font-weight="600" fill="{ink}">{number}</text></g>'
    )


def _legend(system: SystemModel, layout: Layout) -> str:
    columns = _legend_columns(layout)
    rows = math.ceil(len(system.flows) / columns)
    column = (layout.width - 2 * MARGIN) / columns
    parts = []
    for index, flow in enumerate(system.flows):
        x = MARGIN + BADGE + column * (index // rows)
        y = layout.height + 1.5 * LINE + 1.35 * LINE * (index % rows)
        parts.append(_number(index + 1, (x, y), system.crosses(flow) is not None))
        parts.append(f'<text x="{_n(x + 2 * BADGE)}" y="{_n(y + 4.5)}">{escape(flow.name)}</text>')
    y = layout.height + 1.8 * LINE + 1.35 * LINE * rows
    parts.append(
        f'<text x="{_n(MARGIN)}" y="{_n(y)}" font-size="12">A filled number crosses a trust '
        "boundary (dashed). Square: external. Round: process. Open-sided: store.</text>"
    )
    return f'<g class="dfd-legend">{"".join(parts)}</g>'


def _legend_columns(layout: Layout) -> int:
    return max(1, min(LEGEND_COLUMNS, int(layout.width // COLUMN)))


def _wrap(name: str) -> list[str]:
    lines: list[str] = []
    for word in name.split():
        if lines and len(lines[-1]) + 1 + len(word) <= WRAP:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _rect(box: Box) -> str:
    return f'x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.width)}" height="{_n(box.height)}"'


def _n(number: float) -> str:
    """Return a coordinate with one decimal at most, so that the text is stable and short."""
    return f"{number:.1f}".removesuffix(".0")
