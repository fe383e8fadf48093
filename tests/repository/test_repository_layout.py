"""One order everywhere: stages, folders, import-linter's layers, README and docs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import purpleteam
from purpleteam.pipeline.run import STAGES

FLOW = [*STAGES, "report"]


@pytest.fixture(scope="module")
def contracts(root: Path) -> list[dict[str, Any]]:
    config = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = config["tool"]["importlinter"]["contracts"]
    return found


def layers(contracts: list[dict[str, Any]]) -> list[set[str]]:
    """Return the rooms of each layer, the lowest first."""
    lines = next(one["layers"] for one in contracts if one["type"] == "layers")
    return [set(line.replace("purpleteam.", "").split(" | ")) for line in reversed(lines)]


def rows(text: str) -> list[list[str]]:
    found = re.findall(r"^\| `(\w+)` \| .* \| (yes|no) \|$", text, re.MULTILINE)
    return [list(one) for one in found]


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_a_page_shows_the_flow_of_the_stages(root: Path, page: str) -> None:
    text = (root / page).read_text(encoding="utf-8")
    shown = re.findall(r"^    (\w+(?: -> \w+)+)$", text, re.MULTILINE)
    assert shown == [" -> ".join(FLOW)]


def test_the_layers_allow_imports_along_the_flow_only(contracts: list[dict[str, Any]]) -> None:
    order = layers(contracts)
    level = {room: number for number, rooms in enumerate(order) for room in rooms}
    way = ["core", *FLOW, "verbs", "pipeline", "assignment", "cli"]
    assert set(level) == set(way)
    assert [level[room] for room in way] == sorted(level[room] for room in way)


def test_the_package_names_the_rooms_that_its_folders_are(root: Path) -> None:
    folders = {path.parent.name for path in (root / "src" / "purpleteam").glob("*/__init__.py")}
    assert set(purpleteam.ROOMS) == {"core", *FLOW}
    assert folders == {"core", *FLOW, "verbs", "pipeline", "assignment", "cli"}


def test_the_map_of_rooms_says_who_loads_torch(root: Path, contracts: list[dict[str, Any]]) -> None:
    table = rows((root / "docs" / "architecture.md").read_text(encoding="utf-8"))
    without = next(one for one in contracts if one.get("forbidden_modules") == ["torch"])
    assert [room for room, _ in table] == ["core", *FLOW, "verbs", "pipeline", "assignment", "cli"]
    free = {room.removeprefix("purpleteam.") for room in without["source_modules"]}
    assert {room for room, torch in table if torch == "no"} - {"cli"} == free
