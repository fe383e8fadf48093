from __future__ import annotations

import itertools
import math
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from purpleteam.threats import draw, load_system, system_from
from purpleteam.threats.diagram import BADGE, lay_out
from purpleteam.threats.loading import CONDITIONS, only

WHOLE = load_system(None, CONDITIONS)
SVG = "{http://www.w3.org/2000/svg}"


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)  # noqa: S314  (our own text)


def test_the_picture_is_the_same_every_time(shipped):
    assert draw(shipped) == draw(load_system())


def test_the_picture_shows_every_part_and_numbers_every_flow(shipped):
    picture = parsed(draw(shipped))
    words = {" ".join("".join(text.itertext()).split()) for text in picture.iter(f"{SVG}text")}
    squeezed = {word.replace(" ", "") for word in words}
    for one in (*shipped.zones, *shipped.elements, *shipped.flows):
        assert one.name.replace(" ", "") in squeezed, one.name
    assert {str(number) for number in range(1, len(shipped.flows) + 1)} <= words


def test_every_flow_between_zones_is_drawn_as_a_crossing(shipped):
    crossing = [flow for flow in shipped.flows if shipped.crosses(flow)]
    groups = [one.get("class") for one in parsed(draw(shipped)).iter(f"{SVG}g")]
    assert groups.count("dfd-flow dfd-crossing") == len(crossing) == 6


def test_the_picture_holds_no_script_no_style_and_no_reference(shipped):
    allowed = {"svg", "title", "desc", "g", "rect", "path", "polygon", "circle", "text", "tspan"}
    picture = parsed(draw(shipped))
    assert {one.tag.removeprefix(SVG) for one in picture.iter()} <= allowed
    names = {name for one in picture.iter() for name in one.keys()}  # noqa: SIM118
    assert not {name for name in names if name.startswith("on") or name in ("href", "style", "id")}


def test_names_cannot_break_out_of_the_picture(bend):
    name = '<script>alert(1)</script>" onload="x'
    picture = parsed(draw(system_from(bend("elements", 1, name=name))))
    assert not list(picture.iter(f"{SVG}script"))
    assert all("onload" not in one.attrib for one in picture.iter())


def test_no_number_covers_another_or_an_element(shipped):
    layout = lay_out(shipped)
    badges = [arrow.badge for arrow in layout.arrows]
    for (x0, y0), (x1, y1) in itertools.combinations(badges, 2):
        assert math.hypot(x1 - x0, y1 - y0) > 2 * BADGE
    for x, y in badges:
        assert not any(box.contains(x, y, 0) for box in layout.elements.values())


def test_arrows_start_and_end_on_the_borders_of_their_elements(shipped):
    layout = lay_out(shipped)
    for flow, arrow in zip(shipped.flows, layout.arrows):
        for end, (x, y) in ((flow.source, arrow.start), (flow.target, arrow.end)):
            box = layout.elements[end]
            assert box.contains(x, y, 0.01) and not box.contains(x, y, -0.01)


def test_zones_hold_their_elements_and_do_not_overlap(shipped):
    layout = lay_out(shipped)
    for one in shipped.elements:
        assert layout.zones[one.zone].contains(*layout.elements[one.id].centre, 0)
    for first, second in itertools.combinations(layout.zones.values(), 2):
        assert first.x + first.width <= second.x or second.x + second.width <= first.x


def test_elements_without_a_place_get_a_column_for_each_zone(small):
    boxes = lay_out(system_from(small)).elements
    assert boxes["user"].x < boxes["app"].x == boxes["file"].x
    assert boxes["app"].y < boxes["file"].y


@given(st.sets(st.sampled_from(CONDITIONS)))
def test_whatever_is_there_nothing_in_the_picture_covers_another(present):
    layout = lay_out(only(WHOLE, present))
    for first, second in itertools.combinations(layout.zones.values(), 2):
        apart = first.x + first.width <= second.x or second.x + second.width <= first.x
        assert apart or first.y + first.height <= second.y or second.y + second.height <= first.y
    for x, y in (arrow.badge for arrow in layout.arrows):
        assert not any(box.contains(x, y, 0) for box in layout.elements.values())
