"""In a real browser: nothing is blocked, nothing is asked for, and axe finds no serious fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from purpleteam.report import ReportFiles

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is absent")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield started
        started.close()


FEWER = """document.querySelectorAll('tbody, g, body').forEach(parent => {
    const seen = {};
    for (const one of [...parent.children]) {
        const kind = one.tagName + one.getAttribute('class');
        seen[kind] = (seen[kind] || 0) + 1;
        if (seen[kind] > 3) one.remove();
    }
})"""
"""Leave three of each kind of rows, cells and records: axe looks at each of them, for long."""


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_the_page_opens_from_disk_without_a_complaint(
    browser: Any, report: ReportFiles, scheme: str, width: int
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    said: list[str] = []
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=False
    )
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: said.append(request.url))
    page.goto(report.html.as_uri())
    asked = [line for line in said if not line.startswith(("data:", "file:"))]
    assert asked == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.documentElement.scrollHeight") < 5 * 900  # all folded
    page.click("nav a[href='#evasion']")  # a chapter opens where it is jumped to
    assert page.evaluate("document.querySelector('#evasion').closest('details').open")
    page.locator(".card .number").first.click()  # a number opens its record
    assert page.locator(".sheet:popover-open .copy").inner_text().startswith("purple replay . m-")
    page.locator(".sheet:popover-open .close").click()
    assert page.locator(".sheet:popover-open").count() == 0
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    page.evaluate(FEWER)
    found = axe.Axe().run(page).response["violations"]
    grave = [one["id"] for one in found if one["impact"] in ("serious", "critical")]
    assert grave == []
    context.close()
