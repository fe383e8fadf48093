"""The page in a real browser: drawing by mouse, finger and keyboard, and what it must never do.

At the end: drawing.js and data/drawing.py make the same 784 bytes of the same drawing.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from purpleteam.core.cards import find_stored, zoo_names
from purpleteam.data.drawing import EmptyDrawing, fitted, place, strokes
from purpleteam.serve.app import read_assets
from purpleteam.serve.engine import Engine
from purpleteam.serve.main import running_app

pytestmark = pytest.mark.browser
expect = pytest.importorskip("playwright.sync_api", reason="needs Playwright").expect

THREE = [(80, 75), (95, 58), (120, 48), (150, 46), (178, 58), (188, 85), (178, 110), (155, 126)]
THREE += [(125, 132), (155, 138), (182, 155), (194, 185), (182, 215), (150, 234), (115, 232)]
THREE += [(85, 214)]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
WATCH = """window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(event.violatedDirective + " " + event.blockedURI));"""


@pytest.fixture(scope="module")
def standard() -> Iterator[str]:
    if "standard" not in zoo_names():
        pytest.skip("needs the zoo model 'standard'")
    with running_app("standard") as address:
        yield address


@contextmanager
def opened(chromium: Any, url: str, **settings: Any) -> Iterator[Any]:
    """The page; on leaving, it must have broken no rule and called no other host."""
    with chromium.new_context(**settings) as context:
        page = context.new_page()
        said: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.add_init_script(WATCH)
        page.goto(url)
        expect(page.locator("#digest")).not_to_be_empty()
        yield page
        assert said == [] and page.evaluate("window.violations") == []
        assert [one for one in asked if not one.startswith(url + "/")] == []
        assert context.cookies() == [] and page.evaluate("localStorage.length") == 0


def on_screen(page: Any, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    box = page.locator("#pad").bounding_box()
    scale = box["width"] / 280
    return [(box["x"] + x * scale, box["y"] + y * scale) for x, y in points]


def draw(page: Any, points: list[tuple[float, float]]) -> None:
    first, *rest = on_screen(page, points)
    page.mouse.move(*first)
    page.mouse.down()
    for point in rest:
        page.mouse.move(*point, steps=2)
    page.mouse.up()


def draw_by_touch(page: Any, points: list[tuple[float, float]]) -> None:
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *at: tuple[float, float]) -> None:
        fingers = [{"x": x, "y": y} for x, y in at]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    first, *rest = on_screen(page, points)
    touch("touchStart", first)
    for point in rest:
        touch("touchMove", point)
    touch("touchEnd")


def reads(page: Any, text: str) -> None:
    # Not wait_for_function: it polls by eval, which the page's policy rightly blocks.
    expect(page.locator("#verdict")).to_have_text(text)


def seen(page: Any) -> list[int]:
    """The 784 grey levels that the page shows."""
    return page.evaluate(
        """() => Array.from(document.getElementById("seen").getContext("2d")
        .getImageData(0, 0, 28, 28).data.filter((level, at) => at % 4 === 0))"""
    )


def ink(page: Any) -> int:
    return sum(level > 127 for level in seen(page))


def test_a_three_by_mouse_is_read_as_3(chromium: Any, standard: str) -> None:
    with opened(chromium, standard) as page:
        reads(page, "Nothing is drawn yet.")
        draw(page, THREE)
        reads(page, "Read as 3.")
        assert page.locator("#numeral").inner_text() == "3" and ink(page) > 50


def test_a_three_by_finger_is_read_as_3_and_scrolls_nothing(chromium: Any, standard: str) -> None:
    with opened(chromium, standard, **PHONE) as page:
        draw_by_touch(page, THREE)
        reads(page, "Read as 3.")
        assert page.evaluate("scrollY") == 0


def test_a_one_by_keyboard_is_read_as_1(chromium: Any, standard: str) -> None:
    with opened(chromium, standard) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "pad"
        for key in ["ArrowUp"] * 8 + ["Space"]:
            page.keyboard.press(key)
        assert page.locator("#pen").inner_text() == "Pen down."
        for key in ["ArrowDown"] * 16 + ["Space"]:
            page.keyboard.press(key)
        reads(page, "Read as 1.")
        page.keyboard.press("Backspace")
        reads(page, "Nothing is drawn yet.")


def test_the_page_sends_just_the_784_bytes_that_it_shows(chromium: Any, url: str) -> None:
    with opened(chromium, url) as page:
        with page.expect_request("**/predict") as sent:
            draw(page, THREE)
        assert list(sent.value.post_data_buffer) == seen(page)


def test_a_tap_draws_a_dab(chromium: Any, url: str) -> None:
    with opened(chromium, url) as page:
        page.mouse.click(*on_screen(page, [(140, 140)])[0])
        assert ink(page) > 100
        reads(page, "No digit to be seen in this.")


def test_undo_takes_back_strokes_and_a_clearing(chromium: Any, url: str) -> None:
    with opened(chromium, url) as page:
        undo, clear = page.locator("#undo"), page.locator("#clear")
        assert undo.is_disabled() and clear.is_disabled()
        draw(page, THREE)
        whole = ink(page)
        clear.click()
        assert ink(page) == 0 and clear.is_disabled()
        reads(page, "Nothing is drawn yet.")
        undo.click()
        assert ink(page) == whole
        undo.click()
        assert ink(page) == 0 and undo.is_disabled()


def test_a_wider_brush_makes_more_ink(chromium: Any, url: str) -> None:
    with opened(chromium, url) as page:
        draw(page, THREE)
        thin = ink(page)
        page.locator("#clear").click()
        page.locator("#pad").focus()
        for _ in range(3):
            page.keyboard.press("+")
        assert page.locator("#brush").input_value() == "32"
        draw(page, THREE)
        assert ink(page) > thin


def test_a_second_finger_does_not_disturb(chromium: Any, url: str) -> None:
    with opened(chromium, url, **PHONE) as page:
        session = page.context.new_cdp_session(page)
        first, second = on_screen(page, [(100, 60), (200, 60)])
        for kind, at in [("touchStart", [first]), ("touchStart", [first, second])]:
            fingers = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(at)]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.locator("#undo").click()
        assert page.locator("#undo").is_disabled()


def test_confidences_are_shown_only_where_they_are_exposed(chromium: Any, engine: Engine) -> None:
    for exposed in (False, True):
        with (
            running_app(engine, expose_confidences=exposed) as address,
            opened(chromium, address) as page,
        ):
            with page.expect_response("**/predict"):
                draw(page, [(40, 40), (240, 40), (240, 60)])
            expect(page.locator("#verdict")).not_to_have_text("Nothing is drawn yet.")
            assert page.locator("#bars li").count() == (10 if exposed else 0)
            assert page.locator("#confidences").is_visible() == exposed


def test_a_server_that_is_gone_is_said(chromium: Any, engine: Engine) -> None:
    with running_app(engine) as address, chromium.new_context() as context:
        page = context.new_page()
        page.goto(address)
        context.set_offline(True)
        draw(page, THREE)
        reads(page, "The server does not answer.")


def test_the_page_names_its_model(chromium: Any, standard: str) -> None:
    with opened(chromium, standard) as page:
        assert page.locator("#model").inner_text() == "standard"
        assert page.locator("#digest").inner_text() == find_stored("standard").card.digest


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(chromium: Any, engine: Engine, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with (
        running_app(engine, expose_confidences=True) as address,
        opened(chromium, address, color_scheme=scheme) as page,
    ):
        draw(page, [(40, 40), (240, 40), (240, 60)])
        page.wait_for_selector("#bars li")
        page.locator("summary").click()
        found = axe.run(page).response["violations"]
    assert not found, json.dumps(found, indent=1)[:3000]


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_cut_off_and_targets_are_44_pixels(chromium: Any, url: str, width: int) -> None:
    with opened(chromium, url, viewport={"width": width, "height": 800}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for name in ("#undo", "#clear", "#brush", "summary"):
            assert page.locator(name).bounding_box()["height"] >= 44, name


def test_the_page_has_no_inline_code_and_no_storage(url: str) -> None:
    for path, content in read_assets().items():
        text = content.decode()
        assert not re.search(r"innerHTML|localStorage|sessionStorage|document\.cookie", text), path
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), path


PLACE = """async (drawings) => {
  const { place } = await import("/static/drawing.js");
  return drawings.map(([coded, width, height]) => {
    const levels = Uint8Array.from(atob(coded), (letter) => letter.charCodeAt(0));
    const placed = place(levels, width, height);
    return placed === null ? null : Array.from(placed);
  });
}"""
PAINT = """async (lines) => {
  const { strokes } = await import("/static/drawing.js");
  return Array.from(strokes(lines.map(([width, points]) => ({ width, points }))));
}"""


@pytest.fixture(scope="module")
def page(chromium: Any, url: str) -> Iterator[Any]:
    context = chromium.new_context()
    opened = context.new_page()
    opened.goto(url)
    yield opened
    context.close()


def in_python(drawing: np.ndarray) -> list[int] | None:
    try:
        return place(drawing).reshape(-1).tolist()
    except EmptyDrawing:
        return None


def in_browser(page: Any, drawings: list[np.ndarray]) -> list[list[int] | None]:
    coded = [base64.b64encode(one.tobytes()).decode() for one in drawings]
    sizes = [(one.shape[1], one.shape[0]) for one in drawings]
    return page.evaluate(PLACE, [[text, *size] for text, size in zip(coded, sizes)])


def assert_twins(page: Any, drawings: list[np.ndarray]) -> None:
    for drawing, theirs in zip(drawings, in_browser(page, drawings)):
        assert in_python(drawing) == theirs, f"a drawing of {drawing.shape} differs"


def some_lines(seed: int, size: int) -> tuple[list[list[tuple[float, float]]], float]:
    """Lines of points, and the width of a pen."""
    rng = np.random.default_rng(seed)
    lines = [
        [(float(x), float(y)) for x, y in rng.uniform(0, size, (rng.integers(1, 7), 2))]
        for _ in range(rng.integers(1, 4))
    ]
    return lines, float(rng.uniform(0.02, 0.13) * size)


def some_strokes(seed: int, size: int) -> np.ndarray:
    lines, width = some_lines(seed, size)
    return strokes(lines, width=width, size=size)


def test_two_hundred_drawings_are_placed_alike(page: Any) -> None:
    assert_twins(page, [some_strokes(seed, 280 if seed < 20 else 90) for seed in range(200)])


def test_noise_of_any_size_is_placed_alike(page: Any) -> None:
    rng = np.random.default_rng(0)
    sizes = [(int(a), int(b)) for a, b in rng.integers(1, 90, (150, 2))]
    sizes += [(1, 1), (1, 400), (400, 1), (28, 28), (20, 20), (4096, 3), (3, 4096)]
    assert_twins(page, [rng.integers(0, 256, size, dtype=np.uint8) for size in sizes])


def test_images_like_mnist_are_placed_alike(page: Any) -> None:
    drawn = [place(some_strokes(seed, 56)) for seed in range(300, 400)]
    shifted = [np.roll(one, (2, -3), (0, 1)) for one in drawn]
    faint = [(one // 3).astype(np.uint8) for one in drawn]
    assert_twins(page, drawn + shifted + faint)


def test_the_edge_of_ink_is_the_same(page: Any) -> None:
    drawings = [np.full((9, 7), level, np.uint8) for level in (0, 63, 64, 65, 255)]
    assert_twins(page, drawings)


def test_strokes_are_painted_alike(page: Any) -> None:
    for seed in range(20):
        lines, width = some_lines(seed, 280)
        theirs = page.evaluate(PAINT, [[width, line] for line in lines])
        assert strokes(lines, width=width).reshape(-1).tolist() == theirs


FITTED = """async (lines) => {
  const { fitted, place, strokes } = await import("/static/drawing.js");
  return Array.from(place(strokes(fitted(lines)), 280, 280));
}"""


def test_lines_by_any_pen_become_the_same_784_bytes(page: Any) -> None:
    for seed in range(40):
        lines, pen = some_lines(seed, 10 + 7 * seed)
        pens = [pen * share for share in (0.1, 1.0, 4.0)][: len(lines)]
        theirs = page.evaluate(FITTED, [{"width": w, "points": p} for w, p in zip(pens, lines)])
        moved, widths = fitted(lines, width=pens)
        assert place(strokes(moved, width=widths)).reshape(-1).tolist() == theirs
