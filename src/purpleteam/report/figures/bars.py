"""Horizontal bars with their intervals, grouped: claimed beside true, or one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from purpleteam.report.figures.svg import drawing, element, line, text

WIDTH = 520
LEFT, RIGHT, TOP, BOTTOM = 4, 84, 10, 30
LABEL, THICK, GAP, GROUP_GAP = 22, 20, 4, 14


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar: `style` is `claimed`, `true` or `plain`; `text` is written at its end."""

    value: float
    low: float
    high: float
    text: str
    record: str
    style: str = "plain"
    name: str = ""
    """Written inside or behind the bar, where bars of a group differ by kind."""


def bars(
    title: str,
    description: str,
    groups: Sequence[tuple[str, Sequence[Bar]]],
    *,
    top: float = 1.0,
) -> Markup:
    """Return groups of bars over a scale from zero to `top`, a fraction shown in percent."""
    parts: list[Markup] = []
    y = float(TOP)
    for label, group in groups:
        parts.append(
            text(label, LEFT + 8, y + LABEL - 7, "group", group[0].record if group else "")
        )
        y += LABEL
        for bar in group:
            parts.append(_bar(bar, y, top))
            y += THICK + GAP
        y += GROUP_GAP - GAP
    bottom = y - GROUP_GAP + 8
    grid = [_tick(step, bottom, top) for step in range(5)]
    return drawing(title, description, WIDTH, round(bottom + BOTTOM), [*grid, *parts], "bars")


def _x(value: float, top: float) -> float:
    return LEFT + min(1.0, max(0.0, value / top)) * (WIDTH - LEFT - RIGHT)


def _tick(step: int, bottom: float, top: float) -> Markup:
    value = top * step / 4
    x = _x(value, top)
    digits = 0 if top >= 0.2 else 1
    return element(
        "g",
        line(x, TOP, x, bottom, "grid" if step else "axis"),
        text(f"{100 * value:.{digits}f} %", x, bottom + 18, "tick middle" if step else "tick"),
    )


def _bar(bar: Bar, y: float, top: float) -> Markup:
    end, middle = _x(bar.value, top), y + THICK / 2
    low, high = _x(bar.low, top), _x(bar.high, top)
    parts = [
        element(
            "rect",
            x=LEFT,
            y=y,
            width=max(1.5, end - LEFT),
            height=THICK,
            rx=2,
            class_=f"bar {bar.style}",
        ),
        line(low, middle, high, middle, "whisker"),
        line(low, middle - 4, low, middle + 4, "whisker"),
        line(high, middle - 4, high, middle + 4, "whisker"),
        text(bar.text, max(end, high) + 8, middle + 5, f"value {bar.style}", bar.record),
    ]
    if bar.name:
        inside = end - LEFT > 16 + 7 * len(bar.name)
        x = LEFT + 8 if inside else max(end, high) + 16 + 8 * len(bar.text)
        parts.append(
            text(bar.name, x, middle + 4, f"{'inside' if inside else 'behind'} {bar.style}")
        )
    return element("g", *parts, data_record=bar.record)
