"""The data-flow diagram as SVG by hand: zones dashed, flows numbered, no script, no reference.

Colours are `currentColor` and the page's own background, so the picture follows light and dark
as it is; a page may restyle it by these classes:

    dfd             the picture              dfd-flow, dfd-crossing      arrows
    dfd-zone        a trust boundary         dfd-number                  numbers of flows
    dfd-zone-name   its name                 dfd-name                    names of elements
    dfd-external, dfd-process, dfd-store     dfd-legend                  the list below
"""

from __future__ import annotations

import math
from html import escape

from purpleteam.threats.layout import BADGE, MARGIN, TITLE, Arrow, Box, Layout, lay_out
from purpleteam.threats.model import Element, Flow, SystemModel

__all__ = ["draw"]

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


def draw(system: SystemModel, *, standalone: bool = False) -> str:
    """Return the picture of a system, with its style where it is to be a file of its own."""
    layout = lay_out(system)
    height = layout.height + _legend_height(system)
    title = f"Data-flow diagram: {system.name}"
    parts = [
        f'<svg class="dfd" xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="0 0 {_n(layout.width)} {_n(height)}" aria-label="{escape(title)}" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="currentColor">',
        f"<title>{escape(title)}</title>",
        f"<desc>{escape(_description(system))}</desc>",
        STYLE if standalone else "",
        *(
            _zone(zone.name, layout.zones[zone.id])
            for zone in system.zones
            if zone.id in layout.zones
        ),
        *(
            _arrow(arrow, system.crosses(flow) is not None)
            for flow, arrow in zip(system.flows, layout.arrows, strict=True)
        ),
        *(_element(one, layout.elements[one.id]) for one in system.elements),
        *(
            _number(number, arrow.badge, system.crosses(flow) is not None)
            for number, (flow, arrow) in enumerate(zip(system.flows, layout.arrows, strict=True), 1)
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


def _element(one: Element, box: Box) -> str:
    middle, centre = box.centre
    lines = _wrap(one.name)
    first = centre + 4.5 - 8 * (len(lines) - 1)
    text = "".join(
        f'<tspan x="{_n(middle)}" y="{_n(first + 16 * number)}">{escape(line)}</tspan>'
        for number, line in enumerate(lines)
    )
    return (
        f"{_shape(one.kind, box)}"
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


def _number(number: int, place: tuple[float, float], crossing: bool) -> str:
    x, y = place
    disc, ink = ("currentColor", "Canvas") if crossing else ("Canvas", "currentColor")
    return (
        f'<g class="dfd-number"><circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(BADGE)}" fill="{disc}" '
        f'stroke="currentColor" stroke-width="1.3"/><text x="{_n(x)}" y="{_n(y + 4)}" '
        f'text-anchor="middle" font-size="12" font-weight="600" fill="{ink}">{number}</text></g>'
    )


def _legend(system: SystemModel, layout: Layout) -> str:
    rows = _legend_rows(system)
    column = (layout.width - 2 * MARGIN) / LEGEND_COLUMNS
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


def _caption(system: SystemModel, flow: Flow) -> str:
    return f"{flow.name} from {system.names[flow.source]} to {system.names[flow.target]}"


def _legend_rows(system: SystemModel) -> int:
    return math.ceil(len(system.flows) / LEGEND_COLUMNS)


def _legend_height(system: SystemModel) -> float:
    return 2.4 * LINE + 1.35 * LINE * _legend_rows(system)


def _description(system: SystemModel) -> str:
    return "; ".join(
        f"{number}. {_caption(system, flow)}" for number, flow in enumerate(system.flows, 1)
    )


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
