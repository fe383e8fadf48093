"""Take the pictures of the drawing app: `python docs/screenshots.py`; needs Chromium.

With a folder's name it takes every state of the page there, on a desk and on phones, light and
dark, to look at them; without, the one picture that the README shows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from purpleteam.serve.main import running_app

CHROMIUM = "/usr/bin/chromium"
IMAGES = Path(__file__).parent / "images"
DESK = {"viewport": {"width": 1100, "height": 880}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
TURNED = {"viewport": {"width": 844, "height": 390}, "has_touch": True, "is_mobile": True}
THREE = [(80, 75), (95, 58), (120, 48), (150, 46), (178, 58), (188, 85), (178, 110), (155, 126)]
THREE += [(125, 132), (155, 138), (182, 155), (194, 185), (182, 215), (150, 234), (115, 232)]
THREE += [(85, 214)]
Page = Any


def curved(points: list[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Yield points of a curve through the points (Catmull and Rom, 1974)."""
    ends = points[1:], [*points[2:], points[-1]]
    for before, start, end, after in zip([points[0], *points], points, *ends, strict=False):
        for t in (0, 0.25, 0.5, 0.75):
            yield tuple(
                b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * b - a - 3 * c + d)))
                for a, b, c, d in zip(before, start, end, after, strict=True)
            )
    yield points[-1]


def draw(page: Page, points: list[tuple[float, float]]) -> None:
    """Draw a line of points, in 280ths of the drawing area, and leave the pointer elsewhere."""
    box = page.locator("#pad").bounding_box()
    scale = box["width"] / 280
    (x, y), *rest = [(box["x"] + x * scale, box["y"] + y * scale) for x, y in curved(points)]
    page.mouse.move(x, y)
    page.mouse.down()
    for x, y in rest:
        page.mouse.move(x, y)
    page.mouse.up()
    page.mouse.move(1, 1)


def three(page: Page) -> None:
    """Draw a 3 and wait for its label."""
    draw(page, THREE)
    page.get_by_text("Read as").wait_for()


def answered(**answer: Any) -> Callable[[Page], None]:
    """Return a state in which the server answers with what is given."""

    def state(page: Page) -> None:
        page.route("**/predict*", lambda route: route.fulfill(**answer))
        draw(page, THREE)

    return state


def gone(page: Page) -> None:
    """Draw for a server that does not answer."""
    page.route("**/predict", lambda route: route.abort())
    draw(page, THREE)


def slow(page: Page) -> None:
    """Draw on while the server takes its time."""
    three(page)
    page.route("**/predict", lambda _route: None)
    draw(page, [(200, 40), (240, 40)])
    page.get_by_text("Waiting").wait_for()


def many(page: Page) -> None:
    """Draw many strokes, and erase through them."""
    for at in range(12):
        draw(page, [(30 + 18 * at, 40), (60 + 15 * at, 240)])
    page.locator("#erase").click()
    draw(page, [(20, 140), (260, 140)])
    box = page.locator("#pad").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 190)


def small(page: Page) -> None:
    """Draw far too small."""
    draw(page, [(130, 130), (150, 130), (140, 160)])


def sample(page: Page) -> None:
    """Take a sample digit."""
    page.locator("#row button").nth(8).click()
    page.get_by_text("Read as").wait_for()


def wrong(page: Page) -> None:
    """Say that the answer is wrong."""
    three(page)
    page.locator("#wrong").click()


STATES: dict[str, Callable[[Page], None]] = {
    "empty": lambda _page: None,
    "three": three,
    "sample": sample,
    "many": many,
    "small": small,
    "slow": slow,
    "wrong": wrong,
    "near": answered(json={"label": None, "reason": "unsure", "nearest": 7}),
    "gone": gone,
    "limited": answered(status=429, headers={"retry-after": "42"}, json={"detail": ""}),
    "refused": answered(status=403, json={"detail": "Requests from other sites are refused."}),
    "trouble": answered(status=503, json={"detail": "It is about to stop."}),
    "malformed": answered(body="<p>Welcome to the hotel</p>"),
    "locked": answered(status=401, json={"detail": "A key is needed."}),
}


@contextmanager
def opened(browser: Any, address: str, **settings: Any) -> Iterator[Page]:
    """Open the page of a server in a window of its own."""
    with browser.new_context(**settings) as context:
        page = context.new_page()
        page.goto(address)
        page.locator("#copy").wait_for()
        yield page


def main(folder: Path | None, names: list[str]) -> None:
    """Take the pictures."""
    with sync_playwright() as playwright, running_app("standard", without=("rate",)) as address:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        if folder is None:
            with opened(browser, address, **DESK, reduced_motion="reduce") as page:
                three(page)
                page.screenshot(path=IMAGES / "app.png")
            return
        folder.mkdir(parents=True, exist_ok=True)
        for screen, settings in {"desk": DESK, "phone": PHONE, "turned": TURNED}.items():
            for scheme in ("light", "dark"):
                for name in names or STATES:
                    motion = {"reduced_motion": "reduce", "color_scheme": scheme}
                    with opened(browser, address, **settings, **motion) as page:
                        STATES[name](page)
                        page.wait_for_timeout(150)
                        page.screenshot(path=folder / f"{name}-{screen}-{scheme}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None, sys.argv[2:])
