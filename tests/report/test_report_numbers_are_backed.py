"""No bare number: whatever looks like one on the page sits inside an element with its record."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from purpleteam.core.runfolder import RunFolder

NUMBER = re.compile(r"(?<![\w.-])[-+]?\d[\d\u202f.,]*(?![\w-])")
VOID = {"meta", "br", "img", "wbr"}
FREE = {"style", "title", "desc", "th", "h1", "h2", "h3", "caption", "summary"}
"""Headings and captions name radii and epochs; a caption's table has the records."""


class Page(HTMLParser):
    """Every text with its ancestors, and every <data> element with its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.stack: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, list[tuple[str, dict[str, str]]]]] = []
        self.data: list[dict[str, str]] = []
        self.named: set[str] = set()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.named.update(found.get("data-record", "").split())
        self.ids.update({found["id"]} if "id" in found else set())
        self.links.update({found["href"]} if "href" in found else set())
        opened = found.get("popovertarget")
        self.links.update({f"#{opened}"} if opened else set())
        if tag == "data":
            self.data.append(found)
        if tag not in VOID:
            self.stack.append((tag, found))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((data, list(self.stack)))


def bare(page: Page) -> Iterator[str]:
    for text, ancestors in page.texts:
        free = any(
            tag in FREE or "tick" in found.get("class", "").split() for tag, found in ancestors
        )
        backed = any(found.get("data-record") for _, found in ancestors)
        if NUMBER.search(text) and not free and not backed:
            yield text.strip()


def leaves(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from leaves(one)
    elif isinstance(value, int | float):
        yield float(value)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_no_number_on_the_page_is_bare(page: Page) -> None:
    assert list(bare(page)) == []


def test_the_test_for_bare_numbers_finds_one() -> None:
    assert list(bare(Page("<main><p>Robust in 99.7 % of cases</p></main>"))) != []
    assert list(bare(Page('<main><p data-record="m-1">99.7 %</p></main>'))) == []


def test_every_named_record_is_a_record_of_the_run(kept_run: Path, page: Page) -> None:
    known = {record.id for record in RunFolder.open(kept_run).records()}
    assert page.named <= known | {"run.json"}
    assert len(page.named) > 100


def test_every_number_stands_in_the_record_that_it_names(kept_run: Path, page: Page) -> None:
    records = {record.id: record.to_json() for record in RunFolder.open(kept_run).records()}
    assert len(page.data) > 240
    for number in page.data:
        ids = number["data-record"].split()
        value = float(number["value"])
        stated = {leaf for one in ids for leaf in leaves(records[one])}
        assert value in stated or value in (len(ids), 0), number


def test_every_link_leads_to_an_anchor_of_the_page(page: Page) -> None:
    assert {link.removeprefix("#") for link in page.links} <= page.ids
    assert all(link.startswith("#") for link in page.links)


def test_every_record_has_its_row(kept_run: Path, page: Page) -> None:
    assert {record.id for record in RunFolder.open(kept_run).records()} <= page.ids


def test_a_rate_carries_its_interval_and_n(markdown: str) -> None:
    assert "98.89\u202f% (98.66 to 99.09, n\u202f=\u202f10\u202f000) [m-" in markdown


def test_markdown_names_a_record_behind_every_percentage(markdown: str) -> None:
    lines = [line for line in markdown.splitlines() if re.search(r"\d\u202f%", line)]
    assert len(lines) > 50
    assert all(re.search(r"\[[a-z]-[0-9a-f]{10}", line) for line in lines)
