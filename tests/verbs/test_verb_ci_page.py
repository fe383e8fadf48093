"""The job of docs/ci.md: nothing foreign in it, and its lines do what the page says."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

import pages
from purpleteam.cli import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "ci.md").read_text("utf-8")
OWN = (ROOT / "README.md").read_text("utf-8").split("**Five lines of shell**")[0]
"""Where the README makes a module, its weights and a folder of images."""


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    (block,) = pages.blocks(PAGE, "yaml")
    workflow = yaml.safe_load(block)
    (only,) = workflow["jobs"].values()
    assert not any("uses" in step for step in only["steps"])
    assert "write" not in str(workflow["permissions"].get("contents"))
    found: dict[str, Any] = only
    return found


@pytest.fixture(scope="module")
def done(
    job: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[pages.Step]]:
    """Do the job's lines on the README's own model and images."""
    folder = tmp_path_factory.mktemp("ci")
    shell = "".join(step["run"] for step in job["steps"])
    text = f"{OWN}\n```sh\npython make_files.py\n{shell}```\n"
    return folder, pages.do(text, folder, {"purple attack": "--checked 50"})


def test_every_step_is_shell_that_can_be_read(job: dict[str, Any]) -> None:
    for step in job["steps"]:
        subprocess.run(["bash", "-n"], input=step["run"], text=True, check=True)


def test_the_job_passes(done: tuple[Path, list[pages.Step]]) -> None:
    assert [step.code for step in done[1]] == [0, 0, 0, 0], [step.error for step in done[1]]


def test_it_leaves_what_its_last_step_reads(done: tuple[Path, list[pages.Step]]) -> None:
    assert len(list(done[0].glob("runs/*/report.md"))) == 3
    for name in ("accuracy", "attack", "scan"):
        root = ElementTree.parse(done[0] / "results" / f"{name}.xml").getroot()  # noqa: S314
        assert root.get("failures") == "0" and int(root.get("tests", 0)) >= 1
    assert json.loads((done[0] / "results" / "attack.sarif").read_text("utf-8"))["runs"]


def test_the_job_fails_where_a_requirement_is_not_reached(
    done: tuple[Path, list[pages.Step]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = next(step.text for step in done[1] if step.text.startswith("purple evaluate"))
    monkeypatch.chdir(done[0])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_module", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(line.replace("85%", "95%"))[1:])
    assert ended.value.code == 1
    assert re.search(r"NOT REACHED: clean_accuracy>=95%: .*lower end", capsys.readouterr().out)


def test_the_metrics_of_the_page_are_measured(done: tuple[Path, list[pages.Step]]) -> None:
    records = (done[0] / "runs" / "evaluate" / "records.jsonl").read_text("utf-8")
    for name in ("clean_accuracy", "loss", "calibration_error"):
        assert f'"name":"{name}"' in records
