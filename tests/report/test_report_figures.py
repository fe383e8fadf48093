"""Figures: well-formed, titled, traced, and placed where the numbers say."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purpleteam.report.figures import Series, bars, curves, heatmap, only_drawing, spread
from purpleteam.report.view import Number


def number(value: float, low: float, high: float, record: str = "m-1", text: str = "") -> Number:
    return Number(text=text, value=value, records=(record,), ends=(low, high))


POINTS = {0.0: number(0.99, 0.98, 1.0), 0.3: number(0.1, 0.05, 0.2, "m-2")}


def drawn() -> dict[str, str]:
    series = [Series(label="a <model>", points=POINTS, colour=1)]
    bar = (number(0.5, 0.4, 0.6, text="50 %"), "true", "true")
    return {
        "curves": curves("T & t", "d", series, x_label="x", y_label="y"),
        "bars": bars("T & t", "d", [("a <model>", (bar,))]),
        "heatmap": heatmap("T & t", "d", ((9, 1), (0, 10)), ("<0>", "1"), "m-1"),
    }


@pytest.mark.parametrize("kind", ["curves", "bars", "heatmap"])
def test_a_figure_is_well_formed_and_has_a_title(kind: str) -> None:
    root = ElementTree.fromstring(drawn()[kind])  # noqa: S314  our own drawing
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"].startswith("T & t")
    assert root[0].tag == "title"


@pytest.mark.parametrize("kind", ["curves", "bars", "heatmap"])
def test_a_figure_has_no_colour_of_its_own(kind: str) -> None:
    assert not re.search(r'(style|fill|stroke)="', drawn()[kind])


def test_a_bar_is_as_long_as_its_value() -> None:
    def width(value: float) -> float:
        bar = (number(value, value, value), "plain", "")
        return float(re.findall(r'<rect[^>]* width="([\d.]+)"', bars("t", "d", [("a", (bar,))]))[0])

    assert width(0.5) == pytest.approx(width(1.0) / 2)
    assert width(0.0) < 2


def test_a_higher_value_is_drawn_higher() -> None:
    svg = curves("t", "d", [Series(label="a", points=POINTS, colour=0)], x_label="", y_label="")
    line = re.findall(r'<polyline points="([^"]*)"', svg)[0]
    (x1, y1), (x2, y2) = (map(float, pair.split(",")) for pair in line.split())
    assert x1 < x2 and y1 < y2


def test_each_power_of_ten_takes_as_much_room_where_axes_are_logarithmic() -> None:
    points = {10.0**-n: number(10.0**-n, 10.0**-n, 10.0**-n) for n in (3, 2, 1, 0)}
    series = [Series(label="a", points=points, colour=0)]
    svg = curves("t", "d", series, x_label="", y_label="", decades=3)
    line = re.findall(r'<polyline points="([^"]*)"', svg)[0]
    places = [tuple(map(float, pair.split(","))) for pair in line.split()]
    steps = {(round(b[0] - a[0]), round(b[1] - a[1])) for a, b in pairwise(places)}
    assert len(steps) == 1


def test_an_interval_without_an_end_is_drawn_to_the_end_of_the_drawing() -> None:
    endless = {0.0: number(2.0, 1.0, 3.0), 1.0: number(2.5, -math.inf, math.inf)}
    series = [Series(label="loss", points=endless, colour=1)]
    drawing = curves("T", "d", series, x_label="x", y_label="y", over=None, percent=False)
    assert "inf" not in drawing and "nan" not in drawing


def test_a_figure_of_nothing_does_not_fail() -> None:
    assert "<svg" in curves("t", "d", [], x_label="", y_label="", over=None)
    assert "<svg" in bars("t", "d", [])


@given(st.lists(st.floats(-50, 200), max_size=8))
def test_labels_never_overlap(places: list[float]) -> None:
    moved = sorted(spread(places, 10, 0, 200))
    assert all(b - a >= 10 - 1e-6 for a, b in pairwise(moved))


@pytest.mark.parametrize("count", [1, 5, 30])
def test_the_labels_of_lines_that_end_at_one_point_stand_apart_inside_the_drawing(
    count: int,
) -> None:
    series = [Series(label=f"model {n}", points=POINTS, colour=n % 8) for n in range(count)]
    svg = curves("t", "d", series, x_label="", y_label="")
    height = int(re.findall(r'viewBox="0 0 660 (\d+)"', svg)[0])
    places = sorted(map(float, re.findall(r'y="([\d.]+)" class="label', svg)))
    assert len(places) == count and places[0] > 0 and places[-1] < height
    assert all(b - a >= 16.9 for a, b in pairwise(places))


def test_names_wider_than_a_cell_stand_aslant_above_a_matrix() -> None:
    svg = heatmap("t", "d", ((9, 1), (0, 10)), ("elephant", "ox"), "m-1")
    assert svg.count("rotate(-40") == 2
    assert "rotate" not in heatmap("t", "d", ((9, 1), (0, 10)), ("0", "1"), "m-1")


HOSTILE = (
    '<svg viewBox="0 0 9 9" onload="x()"><script>x()</script><style>*{}</style>'
    '<foreignObject><g><img src="//x"></g></foreignObject>'
    '<a href="javascript:x()"><path d="M0 0"/></a>'
    '<rect fill="url(//x)" style="x" width="3"/><text>1 &lt; 2</text></svg><script>y()</script>'
)


def test_a_foreign_drawing_is_cut_down_to_drawing() -> None:
    clean = only_drawing(HOSTILE)
    assert clean == '<svg viewBox="0 0 9 9"><rect width="3"></rect><text>1 &lt; 2</text></svg>'


@given(st.text(alphabet="<>/ svgtextscripon=\"'&;g", max_size=60))
def test_a_cleaned_drawing_is_always_closed_and_without_script(text: str) -> None:
    clean = only_drawing("<svg>" + text)
    assert "<script" not in clean
    assert clean.count("<svg") == clean.count("</svg>")


def test_text_without_a_drawing_gives_nothing() -> None:
    assert only_drawing("no picture <b>here</b>") == ""
