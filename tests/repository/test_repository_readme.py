"""The README: its tables are the results, its commands exist, its example runs."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def tables(root: Path) -> dict[str, Any]:
    return runpy.run_path(str(root / "docs" / "update_tables.py"))


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_its_tables_are_the_results(tables: dict[str, Any]) -> None:
    for page in tables["PAGES"]:
        text = page.read_text(encoding="utf-8")
        assert tables["updated"](text) == text, f"{page.name} and results/ differ: make docs"


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
    assert [one for one in links if one != "results/mnist.json" and not (root / one).exists()] == []


def test_attacking_a_model_of_ones_own_works_as_written(
    readme: str, root: Path, tmp_path: Path
) -> None:
    example = runpy.run_path(str(root / "benchmarks" / "own_model.py"))
    import torch
    from torch import nn

    from purpleteam.data.folders import load_dataset

    text = section(readme, "Is my model robust?")
    (tmp_path / "my_module.py").write_text(fenced(text, "python")[0])
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10)).state_dict(), tmp_path / "w.pt")
    digits = load_dataset("digits")
    for split in ("train", "test"):
        example["write_images"](tmp_path / "my_images" / split, digits.split(split).first(60))
    install, command = fenced(text, "sh")[0].strip().splitlines()
    assert install.startswith("pip install '.[lab]'")
    start = [sys.executable, "-c", "from purpleteam.cli import main; main()"]
    done = subprocess.run(
        [*start, *command.split()[1:]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert "robust accuracy" in done.stdout and "soundness" in done.stdout
