"""The page in a real browser: drawing by mouse, finger and keyboard, and how it looks.

At the end: drawing.js and data/drawing.py make the same 784 bytes of the same drawing.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from serve_browser import (
    HAND,
    PHONE,
    answer,
    draw,
    draw_by_touch,
    ink,
    on_screen,
    says,
    seen,
    watched,
)

from purpleteam.core.cards import find_stored
from purpleteam.data.drawing import EmptyDrawing, fitted, place, strokes
from purpleteam.serve.app import read_assets

pytestmark = pytest.mark.browser
expect = pytest.importorskip("playwright.sync_api", reason="needs Playwright").expect


def test_ten_digits_by_mouse_are_read(page: Any) -> None:
    for digit, lines in enumerate(page.evaluate(HAND)):
        for line in lines:
            draw(page, line)
        says(page, f"Read as {digit}.")
        page.keyboard.press("Delete")


def test_ten_sample_digits_are_read(page: Any) -> None:
    for digit in range(10):
        page.locator("#row button").nth(digit).click()
        says(page, f"Read as {digit}.")
        page.keyboard.press("Delete")


def test_digits_by_finger_on_a_phone_in_both_directions_scroll_nothing(phone: Any) -> None:
    three, seven = (phone.evaluate(HAND)[digit][0] for digit in (3, 7))
    for size, digit, line in [((390, 844), 3, three), ((844, 390), 7, seven)]:
        phone.set_viewport_size(dict(zip(("width", "height"), size)))
        draw_by_touch(phone, line)
        says(phone, f"Read as {digit}.")
        assert phone.evaluate("scrollY") == 0
        for name in ("#pad", "#undo", "#verdict"):
            box = phone.locator(name).bounding_box()
            assert box["y"] >= 0 and box["y"] + box["height"] <= size[1], name
        phone.locator("#clear").click()
    phone.set_viewport_size(PHONE["viewport"])


def test_a_second_finger_does_not_disturb(phone: Any) -> None:
    session = phone.context.new_cdp_session(phone)
    first, second = on_screen(phone, [(100, 60), (200, 60)])
    for kind, at in [("touchStart", [first]), ("touchStart", [first, second])]:
        fingers = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(at)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    phone.locator("#undo").click()
    assert phone.locator("#undo").is_disabled()


def test_a_one_by_keyboard_alone_is_read_erased_undone_and_redone(page: Any) -> None:
    def press(*keys: str) -> None:
        for key in keys:
            page.keyboard.press(key)

    press("Tab")
    assert page.evaluate("document.activeElement.id") == "pad"
    press(*["ArrowUp"] * 8, "Space")
    assert page.locator("#pen").inner_text() == "Pen down."
    press(*["ArrowDown"] * 16, "Space")
    says(page, "Read as 1.")
    whole = ink(page)
    press("e", "+", "Enter", *["ArrowUp"] * 5, "Enter")
    assert page.locator("#erase").get_attribute("aria-pressed") == "true"
    erased = ink(page)
    assert seen(page) != whole and page.locator("[name=width]:checked").input_value() == "32"
    press("Backspace")
    assert ink(page) == whole
    press("Control+y")
    assert ink(page) == erased
    press("Delete", "Control+z", "Control+z", "Control+z")
    says(page, "Nothing is drawn yet.")


def test_the_page_sends_just_the_784_bytes_that_it_shows(tiny: Any) -> None:
    with tiny.expect_request("**/predict") as sent:
        draw(tiny)
    assert list(sent.value.post_data_buffer) == seen(tiny)


def test_a_tap_draws_a_dab(tiny: Any) -> None:
    tiny.mouse.click(*on_screen(tiny, [(140, 140)])[0])
    assert ink(tiny) > 100
    says(tiny, "No digit to be seen in this.")
    expect(tiny.locator("#hint")).to_have_text("It is small: draw larger.")


def test_undo_and_redo_go_back_and_forth_over_strokes_and_clearings(tiny: Any) -> None:
    undo, redo, clear = (tiny.locator(f"#{name}") for name in ("undo", "redo", "clear"))
    assert undo.is_disabled() and redo.is_disabled() and clear.is_disabled()
    draw(tiny)
    whole = seen(tiny)
    clear.click()
    assert ink(tiny) == 0 and clear.is_disabled()
    undo.click()
    assert seen(tiny) == whole
    undo.click()
    assert ink(tiny) == 0 and undo.is_disabled()
    redo.click()
    assert seen(tiny) == whole
    draw(tiny, [(140, 140), (140, 240)])
    assert redo.is_disabled()


def test_the_eraser_takes_ink_away_and_the_pen_puts_it_back(tiny: Any) -> None:
    draw(tiny)
    whole, erase = ink(tiny), tiny.locator("#erase")
    erase.click()
    draw(tiny, [(140, 100), (140, 260)])
    assert 0 < ink(tiny) != whole
    erase.click()
    draw(tiny, [(140, 40), (140, 240)])
    assert abs(ink(tiny) - whole) <= 2  # what is drawn twice counts twice for the slant


def test_a_broader_pen_makes_more_ink(tiny: Any) -> None:
    draw(tiny)
    thin = ink(tiny)
    tiny.locator("#clear").click()
    tiny.get_by_title("Broad pen").click()
    draw(tiny)
    assert ink(tiny) > thin


def test_the_preview_paints_each_point_once(tiny: Any) -> None:
    """What two thousand points cost, over what a thousand do: 2 where linear, 4 where square."""
    painted = tiny.evaluate(
        """async () => {
          const { Painted } = await import("/static/drawing.js");
          const painted = new Painted();
          const lines = [{ points: [] }];
          let count = 0;
          for (let at = 0; at < 1000; at += 1) {
            lines[0].points.push([at, at]);
            for (const one of painted.news(lines, () => {})) count += 1;
          }
          return count;
        }"""
    )
    assert painted == 1000


def test_the_page_names_its_model_and_copies_its_digest(page: Any) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    assert page.locator("#model").inner_text() == "standard"
    page.locator("#copy").click()
    expect(page.locator("#copied")).to_have_text("Copied.")
    digest = page.evaluate("navigator.clipboard.readText()")
    assert digest == page.locator("#digest").inner_text() == find_stored("standard").card.digest
    page.context.clear_permissions()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(tiny: Any, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tiny.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    if scheme == "dark":
        answer(tiny, status=401, json={})
    else:
        answer(tiny, json={"label": 0, "confidences": [0.1] * 10})
    draw(tiny)
    expect(tiny.locator("#locked" if scheme == "dark" else "#bars li >> nth=0")).to_be_visible()
    tiny.locator("summary").click()
    found = axe.run(tiny).response["violations"]
    tiny.emulate_media(color_scheme="light", reduced_motion="reduce")
    assert not found, json.dumps(found, indent=1)[:3000]


def test_ink_keeps_to_forced_colours_and_stillness_to_who_asks_for_it(tiny: Any) -> None:
    style = "(name) => getComputedStyle(document.querySelector(name))"
    tiny.emulate_media(forced_colors="active", reduced_motion="reduce")
    draw(tiny)
    says(tiny, "Read as 0.")
    assert tiny.evaluate(f"({style})('#pad').color") == tiny.evaluate(f"({style})('body').color")
    assert tiny.evaluate(f"({style})('#numeral path').animationName") == "none"
    assert tiny.evaluate(f"({style})('#prompt').transitionDuration") == "0s"
    tiny.emulate_media(forced_colors="none", reduced_motion="reduce")


def test_nothing_is_cut_off_and_targets_are_44_pixels(tiny: Any) -> None:
    """Down to 320 pixels, and at 640x400: a screen of 1280x800 at 200 %."""
    for width, height in [(320, 640), (390, 844), (640, 400), (768, 800), (1280, 800)]:
        tiny.set_viewport_size({"width": width, "height": height})
        assert tiny.evaluate("document.documentElement.scrollWidth") <= width
        for name in ("#undo", "#redo", "#erase", "#clear", "#row button >> nth=0", "summary"):
            assert tiny.locator(name).bounding_box()["height"] >= 44, (name, width)
    tiny.set_viewport_size({"width": 1280, "height": 720})


def test_the_page_is_small_and_has_no_inline_code_and_no_storage() -> None:
    for path, content in read_assets().items():
        text = content.decode()
        assert not re.search(r"innerHTML|localStorage|sessionStorage|document\.cookie", text), path
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), path
        assert not path.endswith(".js") or text.count("\n") < 400, path
    assert sum(map(len, read_assets().values())) <= 80_000


PLACE = """async (drawings) => {
  const { place } = await import("/static/drawing.js");
  return drawings.map(([coded, width, height]) => {
    const levels = Uint8Array.from(atob(coded), (letter) => letter.charCodeAt(0));
    const placed = place(levels, width, height);
    return placed === null ? null : btoa(String.fromCharCode(...placed));
  });
}"""
PAINT = """async (lines) => {
  const { strokes } = await import("/static/drawing.js");
  const levels = strokes(lines.map(([width, points]) => ({ width, points })));
  return Array.from({ length: 280 }, (_, y) =>
    btoa(String.fromCharCode(...levels.subarray(280 * y, 280 * y + 280)))).join("");
}"""


@pytest.fixture(scope="module")
def module(chromium: Any, url: str) -> Iterator[Any]:
    """A page that only imports drawing.js."""
    with watched(chromium) as page:
        page.goto(f"{url}/livez")
        yield page


def in_python(drawing: np.ndarray) -> str | None:
    try:
        return base64.b64encode(place(drawing)).decode()
    except EmptyDrawing:
        return None


def assert_twins(page: Any, drawings: list[np.ndarray]) -> None:
    given = [[base64.b64encode(one).decode(), *one.shape[::-1]] for one in drawings]
    for drawing, theirs in zip(drawings, page.evaluate(PLACE, given)):
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


def test_two_hundred_drawings_are_placed_alike(module: Any) -> None:
    assert_twins(module, [some_strokes(seed, 280 if seed < 20 else 90) for seed in range(200)])


def test_noise_of_any_size_is_placed_alike(module: Any) -> None:
    rng = np.random.default_rng(0)
    sizes = [(int(a), int(b)) for a, b in rng.integers(1, 90, (100, 2))]
    sizes += [(1, 1), (1, 400), (400, 1), (28, 28), (20, 20), (4096, 3), (3, 4096)]
    assert_twins(module, [rng.integers(0, 256, size, dtype=np.uint8) for size in sizes])


def test_images_like_mnist_are_placed_alike(module: Any) -> None:
    drawn = [place(some_strokes(seed, 56)) for seed in range(300, 340)]
    shifted = [np.roll(one, (2, -3), (0, 1)) for one in drawn]
    faint = [(one // 3).astype(np.uint8) for one in drawn]
    assert_twins(module, drawn + shifted + faint)


def test_the_edge_of_ink_is_the_same(module: Any) -> None:
    drawings = [np.full((9, 7), level, np.uint8) for level in (0, 63, 64, 65, 255)]
    assert_twins(module, drawings)


def test_strokes_are_painted_alike(module: Any) -> None:
    for seed in range(20):
        lines, width = some_lines(seed, 280)
        theirs = module.evaluate(PAINT, [[width, line] for line in lines])
        rows = [base64.b64encode(row.tobytes()).decode() for row in strokes(lines, width=width)]
        assert "".join(rows) == theirs


FITTED = """async (lines) => {
  const { Raster, fitted, place, strokes } = await import("/static/drawing.js");
  const levels = new Raster().follow(lines);
  if (strokes(fitted(lines)).some((level, at) => level !== levels[at])) return "another raster";
  return btoa(String.fromCharCode(...place(levels, 280, 280)));
}"""


def test_lines_by_any_pen_become_the_same_784_bytes(module: Any) -> None:
    for seed in range(40):
        lines, pen = some_lines(seed, 10 + 7 * seed)
        pens = [pen * share for share in (0.1, 1.0, 4.0)][: len(lines)]
        theirs = module.evaluate(FITTED, [{"width": w, "points": p} for w, p in zip(pens, lines)])
        moved, widths = fitted(lines, width=pens)
        assert in_python(strokes(moved, width=widths)) == theirs
