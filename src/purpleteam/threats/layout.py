"""Where the parts of a data-flow diagram lie: boxes on a grid, zones around them, arrows.

Everything is a pure function of the system: the same file gives the same picture. Units are
pixels of the picture's own view box.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from purpleteam.threats.model import Element, SystemModel

__all__ = ["Arrow", "Box", "Layout", "lay_out"]

WIDTH, HEIGHT = 148.0, 58.0
COLUMN, ROW = 222.0, 132.0
PADDING = 22.0
TITLE = 20.0
MARGIN = 12.0
BADGE = 11.0
APART = 15.0
"""Half the distance between two arrows that join the same two elements."""


@dataclass(frozen=True)
class Box:
    """A rectangle by its corner and size."""

    x: float
    y: float
    width: float
    height: float

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the box."""
        return self.x + self.width / 2, self.y + self.height / 2

    def contains(self, x: float, y: float, margin: float) -> bool:
        """Return whether a point lies in the box or within `margin` of it."""
        inside_x = self.x - margin < x < self.x + self.width + margin
        return inside_x and self.y - margin < y < self.y + self.height + margin


@dataclass(frozen=True)
class Arrow:
    """A straight line from border to border, with a place for its number."""

    start: tuple[float, float]
    end: tuple[float, float]
    badge: tuple[float, float]


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
    elements = {name: _box(*place) for name, place in _places(system).items()}
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
    """Return column and row of every element; those that state none get a column per zone."""
    given = {one.id: one.at for one in system.elements if one.at is not None}
    first_free = max((column for column, _ in given.values()), default=-1) + 1
    waiting: dict[str, list[Element]] = {}
    for one in system.elements:
        if one.at is None:
            waiting.setdefault(one.zone, []).append(one)
    free = {
        one.id: (first_free + number, row)
        for number, members in enumerate(waiting.values())
        for row, one in enumerate(members)
    }
    return given | free


def _box(column: int, row: int) -> Box:
    left = MARGIN + PADDING + column * COLUMN
    return Box(left, MARGIN + PADDING + TITLE + row * ROW, WIDTH, HEIGHT)


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


def _line(
    source: Box, target: Box, shift: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the line between two boxes, moved `shift` to its right-hand side."""
    (x0, y0), (x1, y1) = source.centre, target.centre
    length = math.hypot(x1 - x0, y1 - y0) or 1.0
    along = (x1 - x0) / length, (y1 - y0) / length
    across = -along[1] * shift, along[0] * shift
    start = _border(source, along, across)
    return start, _border(target, (-along[0], -along[1]), across)


def _border(
    box: Box, along: tuple[float, float], across: tuple[float, float]
) -> tuple[float, float]:
    """Return where a ray from the centre of the box, moved by `across`, leaves it."""
    reach = min(
        _reach(box.width / 2, along[0], across[0]), _reach(box.height / 2, along[1], across[1])
    )
    x, y = box.centre[0] + across[0], box.centre[1] + across[1]
    return x + along[0] * reach, y + along[1] * reach


def _reach(half: float, along: float, across: float) -> float:
    """Return how far a ray goes along one axis before it is `half` from the centre."""
    return (half - math.copysign(1.0, along) * across) / abs(along) if along else math.inf


def _free_place(
    start: tuple[float, float],
    end: tuple[float, float],
    others: Iterable[Arrow],
    boxes: Iterable[Box],
) -> tuple[float, float]:
    """Return the point nearest the middle of the line where a number covers nothing else."""
    taken = [arrow.badge for arrow in others]
    solid = list(boxes)
    middle = _between(start, end, 0.5)
    for share in (0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74):
        x, y = _between(start, end, share)
        near = any(math.hypot(x - a, y - b) < 2.5 * BADGE for a, b in taken)
        if not near and not any(box.contains(x, y, BADGE) for box in solid):
            return x, y
    return middle


def _between(
    start: tuple[float, float], end: tuple[float, float], share: float
) -> tuple[float, float]:
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])
