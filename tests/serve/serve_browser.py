"""The page in a browser: what tests of it do, and what must hold at the end of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

Points = list[tuple[float, float]]
TOP: Points = [(40, 40), (240, 40), (140, 40), (140, 240)]  # the tiny model says 0 of it
BOTTOM: Points = [(40, 240), (240, 240), (240, 200), (40, 200)]  # and 1 with this, too
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
WATCH = """window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(event.violatedDirective + " " + event.blockedURI));"""
HAND = """async () => {
  const { NUMERALS } = await import("/static/numerals.js");
  return NUMERALS.map((lines) => lines.map((line) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", line);
    const points = Array.from({ length: 9 }, (_, at) =>
      path.getPointAtLength((at / 8) * path.getTotalLength()));
    return points.map(({ x, y }) => [65 + 1.5 * x, 35 + 1.5 * y]);
  }));
}"""


@contextmanager
def watched(chromium: Any, **settings: Any) -> Iterator[Any]:
    with chromium.new_context(**settings) as context:
        page = context.new_page()
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.add_init_script(WATCH)
        page.clock.install()
        yield page


@contextmanager
def opened(page: Any, url: str) -> Iterator[Any]:
    """The page anew; on leaving, it must have broken no rule and called no other host."""
    page.said.clear()
    page.asked.clear()
    page.goto(url)
    page.locator("#copy").wait_for()
    yield page
    page.unroute_all(behavior="ignoreErrors")
    page.clock.resume()
    complaints = [one for one in page.said if "Failed to load resource" not in one]
    assert complaints == [] and page.evaluate("window.violations") == []
    assert [one for one in page.asked if not one.startswith(url + "/")] == []
    assert page.context.cookies() == [] and page.evaluate("localStorage.length") == 0


def on_screen(page: Any, points: Points) -> Points:
    box = page.locator("#pad").bounding_box()
    scale = box["width"] / 280
    return [(box["x"] + x * scale, box["y"] + y * scale) for x, y in points]


def draw(page: Any, points: Points = TOP) -> None:
    first, *rest = on_screen(page, points)
    page.mouse.move(*first)
    page.mouse.down()
    for point in rest:
        page.mouse.move(*point)
    page.mouse.up()


def draw_by_touch(page: Any, points: Points) -> None:
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *at: tuple[float, float]) -> None:
        fingers = [{"x": x, "y": y} for x, y in at]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    first, *rest = on_screen(page, points)
    touch("touchStart", first)
    for point in rest:
        touch("touchMove", point)
    touch("touchEnd")


def says(page: Any, text: str) -> None:
    from playwright.sync_api import expect

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


def answer(page: Any, **answer: Any) -> None:
    """Answer every image as given from now on, in place of the server."""
    page.unroute_all(behavior="ignoreErrors")
    page.route("**/predict", lambda route: route.fulfill(**answer))
