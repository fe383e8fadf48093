"""A sweep does each cell once, and leaves the same bytes, whoever does them and whatever dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from purpleteam.core.errors import ConfigError, RunError
from purpleteam.core.runfolder import RunFolder
from purpleteam.pipeline.sweep import Swept, read_plan, run_sweep

SWEEP = """
name: tiny
cells:
  - {verb: evaluate, model: [standard, robust-0.3], dataset: digits, limit: [20, 30], seed: [0, 1]}
  - {verb: attack, dataset: digits, attack: fgsm, epsilon: [0.1, 8/255], limit: 20, checked: 20}
"""
CRASHING = """
import os, torch
def build():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    torch.nn.init.ones_(net[1].weight), torch.nn.init.zeros_(net[1].bias)
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net
        def forward(self, x):
            with open("begun", "a") as file:
                file.write(f"{len(x)}\\n")
            if len(x) == 23 and os.path.exists("kills"):
                os.kill(os.getpid(), 9)
            return self.net(x)
    return Net()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP, encoding="utf-8")
    return path


def swept(file: Path, out: Path, **how: object) -> Swept:
    return run_sweep(read_plan(file), out, **how)  # type: ignore[arg-type]


def found(out: Path) -> tuple[str, bytes]:
    return RunFolder.open(out).metrics(), (out / "exports" / "sweep.csv").read_bytes()


def test_the_product_of_all_lists_is_planned_each_cell_once(file: Path) -> None:
    cells = read_plan(file).cells
    assert len(cells) == 2 * 2 * 2 + 2
    assert cells[1].what == "evaluate model=standard limit=20 seed=1"
    assert cells[-1].options["epsilon"] == [8 / 255] and cells[-1].options["images"] == "digits"
    file.write_text(SWEEP.replace("[0, 1]", "[0, 1, 1]"), encoding="utf-8")
    assert read_plan(file).cells == cells


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("evaluate", "evalate", "unknown verb 'evalate'.*evaluate"),
        ("limit: [20, 30]", "limt: 20", "unknown option 'limt'.*limit"),
        ("[20, 30]", "[]", "limit is an empty list"),
        ("[20, 30]", "[20, many]", "limit = 'many': must be a whole number"),
        ("[0, 1]", "[-1]", "seed = -1: must be at least 0"),
        ("8/255", "far", "'far'"),
        ("name: tiny", "names: tiny", "unknown key 'names'.*name"),
        ("cells:", "cells: {", "cannot be read"),
        ("name: tiny", "threads: many", "threads = 'many': must be from 1 to 256"),
    ],
)
def test_what_no_verb_takes_is_refused_by_name(
    file: Path, before: str, after: str, said: str
) -> None:
    file.write_text(SWEEP.replace(before, after), encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        read_plan(file)


def test_several_processes_leave_the_bytes_of_one(file: Path, tmp_path: Path) -> None:
    one, two = swept(file, tmp_path / "one"), swept(file, tmp_path / "two", workers=2)
    assert (one.done, one.before, two.done) == (10, 0, 10)
    assert found(one.run) == found(two.run)
    assert swept(file, one.run).before == 10
    assert found(one.run) == found(two.run)


def test_a_longer_sweep_does_what_is_new(file: Path, tmp_path: Path) -> None:
    out = swept(file, tmp_path / "out").run
    file.write_text(SWEEP.replace("[0, 1]", "[0, 1, 2]"), encoding="utf-8")
    longer = swept(file, out)
    assert (longer.cells, longer.before) == (14, 10)
    assert len(RunFolder.open(out).info["asked"]["sweep"]["cells"]) == 2
    other = RunFolder.create(tmp_path / "other", {"verb": "attack"})
    with pytest.raises(RunError, match="no sweep"):
        swept(file, other.path)


def test_a_driver_that_is_killed_goes_on_where_it_was(file: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", swept(file, tmp_path / "whole").run
    typed = [sys.executable, "-m", "purpleteam", "sweep", str(file), "--out", str(out)]
    driver = subprocess.Popen([*typed, "--workers", "2"], stderr=subprocess.DEVNULL)
    drafts = out / ".drafts"
    while driver.poll() is None and len(list(drafts.glob("*.json"))) < 3:
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    resumed = swept(file, out, workers=2)
    assert 3 <= resumed.before < 10
    assert found(out) == found(whole)


def test_a_cell_that_kills_its_process_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("crashing.py").write_text(CRASHING, encoding="utf-8")
    Path("kills").touch()
    block = "{verb: evaluate, model: crashing.py:build, dataset: digits, limit: [22, 23, 24]}"
    Path("sweep.yaml").write_text(f"cells: [{block}]", encoding="utf-8")
    told: list[str] = []
    done = swept(Path("sweep.yaml"), tmp_path / "out", workers=2, told=told.append)
    (failure,) = done.failures
    assert (done.done, failure.what) == (2, "evaluate limit=23")
    assert failure.reason == f"crashed 3 times: its process ended with code -{signal.SIGKILL:d}"
    assert Path("begun").read_text("utf-8").split().count("23") == 3
    assert any("failed: evaluate limit=23" in line for line in told)
    assert "crashed 3 times" in done.report.read_text("utf-8")
    Path("kills").unlink()
    again = swept(Path("sweep.yaml"), tmp_path / "out", workers=2)
    assert (again.done, again.before, again.failures) == (3, 2, ())
    assert "crashed 3 times" not in again.report.read_text("utf-8")


def test_what_a_verb_refuses_is_told_and_the_others_are_done(file: Path, tmp_path: Path) -> None:
    file.write_text(SWEEP.replace("fgsm", "[fgsm, fgms]"), encoding="utf-8")
    done = swept(file, tmp_path / "out")
    assert done.done == 10
    assert len(done.failures) == 2
    assert all(one.reason.startswith("unknown attack 'fgms'") for one in done.failures)


def test_the_page_shows_curves_a_map_and_a_table(file: Path, tmp_path: Path) -> None:
    page = swept(file, tmp_path / "out").report.read_text("utf-8")
    for said in ("over epsilon", "over limit", "by model and limit", "mean over seeds"):
        assert said in page
    lines = (tmp_path / "out" / "exports" / "sweep.csv").read_text("utf-8").splitlines()
    assert lines[0].startswith("verb,model,images,attack,epsilon,seed,")
    assert json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))["status"] == "finished"


def test_no_worker_outlives_a_driver(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    typed = [sys.executable, "-m", "purpleteam", "sweep", str(file), "--out", str(out)]
    driver = subprocess.Popen([*typed, "--workers", "2"], stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children")
    if not children.exists():  # pragma: no cover
        pytest.skip("the system does not list a process's children")
    workers: list[str] = []
    while driver.poll() is None and len(workers) < 2:
        workers = children.read_text("utf-8").split()
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    until = time.monotonic() + 20
    while time.monotonic() < until and any(map(_runs, workers)):
        time.sleep(0.1)
    assert workers and not any(map(_runs, workers))


def _runs(pid: str) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text("utf-8")
