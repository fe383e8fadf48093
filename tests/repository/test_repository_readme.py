"""The README: its tables are the results, its commands and links exist."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

MOST_LINES = 260


@pytest.fixture(scope="module")
def tables(root: Path) -> dict[str, Any]:
    return runpy.run_path(str(root / "docs" / "update_tables.py"))


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_its_tables_are_the_results(tables: dict[str, Any]) -> None:
    for page in tables["PAGES"]:
        text = page.read_text(encoding="utf-8")
        assert tables["updated"](text) == text, f"{page.name} and results/ differ: make docs"


def test_its_drawings_are_the_results(root: Path, tables: dict[str, Any]) -> None:
    for name, picture in tables["pictures"]().items():
        assert (root / "docs" / "images" / name).read_text("utf-8") == picture, "make docs"


def test_a_front_is_drawn_with_a_line_for_each_recipe(
    tables: dict[str, Any], tmp_path: Path
) -> None:
    rate = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 50, "method": "clopper-pearson"}
    shared = {"seed": 0, "images": 9, "epochs": 1, "tested": 50, "ramp": False, "epsilon": 0.1}
    shared |= {"training_cpu_seconds": 1.0, "clean_accuracy": rate, "certified_accuracy": rate}
    plans = enumerate(("ibp:robust_weight=1", "sabr:relative_size=0.1"))
    points = {plan: shared | {"weight": plan, "place": place} for place, plan in plans}
    (tmp_path / "front.json").write_text(json.dumps({"points": points}))
    drawn = tables["pictures"](tmp_path)["front-0.1.svg"]
    assert drawn.startswith("<svg xmlns=") and drawn.count("<polyline") == 2
    assert "| 0.1 | `sabr:relative_size=0.1` | 90.00" in tables["render"]("front", tmp_path)


def test_each_file_of_results_has_its_block(root: Path, tables: dict[str, Any]) -> None:
    pages = [page.read_text(encoding="utf-8") for page in tables["PAGES"]]
    blocks = {match[1] for page in pages for match in tables["BLOCK"].findall(page)}
    assert {path.stem for path in (root / "results").glob("*.json")} <= blocks


def test_a_changed_result_would_change_it(
    tables: dict[str, Any], readme: str, root: Path, tmp_path: Path
) -> None:
    found = json.loads((root / "results" / "install.json").read_text(encoding="utf-8"))
    changed = {**found, "distributions": found["distributions"] + 1}
    (tmp_path / "install.json").write_text(json.dumps(changed))
    block = tables["render"]("install", tmp_path)
    assert str(changed["distributions"]) in block and block not in readme


def test_each_server_that_was_measured_has_its_row(
    tables: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    found = json.loads((root / "results" / "serve.json").read_text(encoding="utf-8"))
    found["cost"]["cpu_microseconds"] = {"floor": [100.0], "flask": [700.0], "gradio": [8000.0]}
    (tmp_path / "serve.json").write_text(json.dumps(found))
    block = tables["render"]("serve", tmp_path)
    assert "| a naive Gradio app: the same, by its HTTP API | 8,000 us | 80.0 |" in block


def test_no_page_holds_a_number_that_was_typed(tables: dict[str, Any]) -> None:
    pages = [page.read_text(encoding="utf-8") for page in tables["PAGES"]]
    prose = tables["BLOCK"].sub("", "\n".join(pages))
    assert not re.findall(r"\d\s?%|\d\s?(?:seconds|s|ms|minutes|hours|MB|GB)\b", prose)


def test_every_verb_stands_in_its_table(readme: str) -> None:
    from purpleteam.cli.app import app

    commands = [one.name or one.callback.__name__ for one in app.registered_commands]  # type: ignore[union-attr]
    verbs = {*commands, *(one.name for one in app.registered_groups)}
    assert set(re.findall(r"`purple ([a-z]+)`", section(readme, "The flow"))) == verbs


def test_every_make_target_that_it_names_exists(root: Path, readme: str) -> None:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):.*## ", makefile, re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)", readme))
    assert {"setup", "demo", "test", "check", "bench", "docs"} <= targets
    assert named and named <= targets


def test_every_file_that_it_links_to_is_there(root: Path, readme: str) -> None:
    links = [one for one in re.findall(r"\]\(([^)#]+)\)", readme) if "://" not in one]
    assert links
    assert [one for one in links if not (root / one).exists()] == []


def test_every_link_of_a_page_leads_somewhere(root: Path) -> None:
    for page in (root / "docs").glob("*.md"):
        links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
        inside = [link for link in links if "://" not in link and not link.startswith("`")]
        assert [link for link in inside if not (page.parent / link).exists()] == [], page.name


def test_it_is_short_and_its_tables_hold_no_records(readme: str) -> None:
    assert len(readme.splitlines()) <= MOST_LINES
    assert not re.findall(r"\b[mcn]-[0-9a-f]{10}\b", readme)
    assert not re.search(r"course report|seed-a|seed-b", readme)
