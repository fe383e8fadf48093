"""A sweep does each cell once, and leaves the same bytes, whoever does them and whatever dies."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from purpleteam.core.errors import MissingExtra, ModelError, RunError
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.verification import verify
from purpleteam.pipeline.engines import ENGINES, Job, Outcome
from purpleteam.pipeline.engines._job import do
from purpleteam.pipeline.naming import Naming
from purpleteam.pipeline.plan import read_plan
from purpleteam.pipeline.sweep import Swept, _alone, run_sweep
from purpleteam.pipeline.sweep_table import _text
from purpleteam.report import swept as report_swept
from purpleteam.report.swept import read_table

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
            KILLS
            return self.net(x)
    return Net()
"""
KILLS = "if len(x) == 23 and os.path.exists('kills'): os.kill(os.getpid(), 9)"
CRASHING = CRASHING.replace("KILLS", KILLS)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP, encoding="utf-8")
    return path


def swept(file: Path, out: Path, **how: object) -> Swept:
    return run_sweep(read_plan(file), out, **how)  # type: ignore[arg-type]


def found(out: Path) -> tuple[str, bytes]:
    return RunFolder.open(out).metrics(), (out / "exports" / "sweep.csv").read_bytes()


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
    journal = out / ".drafts" / "cells.jsonl"
    while driver.poll() is None and not (
        journal.exists() and journal.read_bytes().count(b"\n") > 2
    ):
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


def test_the_table_and_the_page_are_of_the_cells_that_are_asked_for_now(
    file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for epsilon, before in (("0.1", 0), ("[0.1, 0.2]", 1), ("0.2", 1), ("0.1", 1)):
        block = f"{{verb: attack, dataset: digits, attack: fgsm, epsilon: {epsilon}, limit: 20}}"
        file.write_text(f"cells: [{block}]", encoding="utf-8")
        done = swept(file, out)
        lines = (out / done.table.relative_to(out)).read_text("utf-8").splitlines()
        assert (done.before, len(lines) - 1) == (before, done.cells)
    assert "fgsm over" not in done.report.read_text("utf-8")
    assert verify(out).verdict == "pass"


def test_a_replaced_file_is_another_model_and_never_its_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(CRASHING, encoding="utf-8")
    block = "{verb: evaluate, model: own.py:build, weights: w.pt, dataset: digits, limit: [20, 30]}"
    Path("sweep.yaml").write_text(f"cells: [{block}]", encoding="utf-8")
    for seed in (0, 1):
        torch.manual_seed(seed)
        state = {"net.1.weight": torch.randn(10, 784), "net.1.bias": torch.zeros(10)}
        torch.save(state, "w.pt")
        done = swept(Path("sweep.yaml"), Path("out"))
        assert (done.before, done.done) == (0, 2)
    metric = read_table(tmp_path / "out").metrics["clean_accuracy"]
    assert [len(group.values) for group in metric.by("limit").values()] == [1, 1]


def test_two_sweeps_are_never_at_one_folder(file: Path, tmp_path: Path) -> None:
    block = "{verb: evaluate, dataset: digits, limit: 20}"
    file.write_text(f"cells: [{block}]", encoding="utf-8")
    with _alone(tmp_path / "out"), pytest.raises(RunError, match="another sweep is at"):
        swept(file, tmp_path / "out")
    assert swept(file, tmp_path / "out").done == 1


def test_stopping_begins_no_cell_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    waits = "if len(x) == 23: __import__('time').sleep(60)"
    Path("own.py").write_text(CRASHING.replace(KILLS, waits), encoding="utf-8")
    block = "{verb: evaluate, model: own.py:build, dataset: digits, limit: [22, 23]}"
    Path("sweep.yaml").write_text(f"cells: [{block}]", encoding="utf-8")
    typed = [sys.executable, "-m", "purpleteam", "sweep", "sweep.yaml", "--workers", "2"]
    driver = subprocess.Popen(typed, stderr=subprocess.PIPE, text=True)
    begun = Path("begun")
    while driver.poll() is None and not (begun.exists() and "23" in begun.read_text("utf-8")):
        time.sleep(0.05)
    driver.send_signal(signal.SIGINT)
    _, said = driver.communicate(timeout=30)
    assert (driver.returncode, "a sweep as it was typed" in said) == (130, True)
    assert begun.read_text("utf-8").split().count("23") == 1
    assert json.loads(Path("runs/sweep/run.json").read_text("utf-8"))["status"] == "stopped"


def test_a_net_may_go_to_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    moves = CRASHING.replace(KILLS, "os.chdir('/')").replace('"begun"', "os.devnull")
    Path("own.py").write_text(moves, encoding="utf-8")
    block = "{verb: evaluate, model: own.py:build, dataset: digits, limit: [20, 21]}"
    Path("sweep.yaml").write_text(f"cells: [{block}]", encoding="utf-8")
    for workers in (1, 2):
        assert swept(Path("sweep.yaml"), Path(f"out{workers}"), workers=workers).done == 2


def test_what_cannot_be_opened_leaves_no_folder(file: Path, tmp_path: Path) -> None:
    file.write_text(SWEEP.replace("robust-0.3", "nobody"), encoding="utf-8")
    with pytest.raises(ModelError, match="'nobody'"):
        swept(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_page_shows_curves_a_map_and_a_table(file: Path, tmp_path: Path) -> None:
    page = swept(file, tmp_path / "out").report.read_text("utf-8")
    for said in ("over epsilon", "over limit", "by model and limit", "mean over seeds"):
        assert said in page
    lines = (tmp_path / "out" / "exports" / "sweep.csv").read_text("utf-8").splitlines()
    assert lines[0].startswith("verb,model,images,attack,epsilon,seed,")
    assert json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))["status"] == "finished"


def test_a_large_page_is_of_a_part_of_the_records_and_says_so(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_swept, "RECORDS", 40)
    monkeypatch.setattr(report_swept, "GROUPS", 9)
    done = swept(file, tmp_path / "out")
    page = done.report.read_text("utf-8")
    for said in ("too many for a page", "by limit, over all the rest", "Lowest", "sweep.csv"):
        assert said in page
    shown = read_table(done.run).shown
    assert 0 < page.count("purple replay .") == len(shown) < 30
    assert "over limit" not in page and "over epsilon" in page
    verdicts = {part.name: part.verdict for part in verify(done.run).parts}
    assert verdicts["status"] == verdicts["chain"] == "pass"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Outcome], object]:
    """Return the outcome of each cell of SWEEP, and what a sweep of them leaves."""
    folder = tmp_path_factory.mktemp("known")
    (folder / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
    plan = read_plan(folder / "sweep.yaml")
    jobs = [Naming(plan, folder).job(cell) for cell in plan.cells]
    whole = found(swept(folder / "sweep.yaml", folder / "out").run)
    return {job.key: do(job) for job in jobs}, whole


@settings(max_examples=8, deadline=None, derandomize=True)
@given(order=st.permutations(range(10)), stops=st.lists(st.integers(1, 9), max_size=3))
def test_any_order_and_any_interruption_leave_the_same_bytes(
    known: tuple[dict[str, Outcome], object], order: list[int], stops: list[int]
) -> None:
    outcomes, whole = known
    places = dict(zip(outcomes, order, strict=True))
    with tempfile.TemporaryDirectory() as work, pytest.MonkeyPatch.context() as patch:
        file, out = Path(work) / "sweep.yaml", Path(work) / "out"
        file.write_text(SWEEP, encoding="utf-8")
        left = [*stops, 99]

        class AnyOrder:
            """Does jobs in the drawn order, and is stopped after some of them."""

            def run(self, jobs: deque[Job]) -> Iterator[Outcome]:
                waiting = sorted(jobs, key=lambda job: places[job.key])
                jobs.clear()
                stop = left.pop(0)
                for done, job in enumerate(waiting):
                    if done == stop:
                        raise KeyboardInterrupt
                    yield outcomes[job.key]

            def close(self) -> None:
                """Nothing was started."""

        patch.setitem(ENGINES._items, "any order", lambda **_: AnyOrder())
        for _ in [*stops, 99]:
            with suppress(KeyboardInterrupt):
                done = swept(file, out, engine="any order")
        assert done.done == 10
        assert found(out) == whole


@pytest.mark.parametrize(
    ("text", "shown"),
    [("=1+1", "'=1+1"), ("@a", "'@a"), ("-x", "'-x"), ("\ta", "'\ta"), ("-0.5", "-0.5"), (-1, -1)],
)
def test_no_text_of_a_table_is_a_formula(text: object, shown: object) -> None:
    assert _text(text) == shown


def test_a_cell_that_hangs_is_ended_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    waits = "if len(x) == 23: __import__('time').sleep(600)"
    Path("own.py").write_text(CRASHING.replace(KILLS, waits), encoding="utf-8")
    block = "{verb: evaluate, model: own.py:build, dataset: digits, limit: [22, 23, 24]}"
    Path("sweep.yaml").write_text(f"seconds: 20\ncells: [{block}]", encoding="utf-8")
    done = swept(Path("sweep.yaml"), Path("out"))
    (failure,) = done.failures
    assert (done.done, failure.what, failure.reason) == (
        2, "evaluate limit=23", "took more than 20 s",
    )  # fmt: skip
    assert Path("begun").read_text("utf-8").split().count("23") == 1


def test_a_factory_that_ends_its_process_ends_no_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ends.py").write_text("import os\ndef build():\n    os._exit(3)\n", encoding="utf-8")
    block = "{verb: evaluate, model: [standard, ends.py:build], dataset: digits, limit: 20}"
    Path("sweep.yaml").write_text(f"cells: [{block}]", encoding="utf-8")
    done = swept(Path("sweep.yaml"), Path("out"))
    (failure,) = done.failures
    what = "evaluate model=ends.py:build"
    assert (done.done, done.before, failure.what) == (1, 0, what)
    assert "ended with code 3, when it was opened" in failure.reason


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_an_engine_that_is_missing_leaves_no_folder(file: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingExtra, match="Ray"):
        swept(file, tmp_path / "out", engine="ray")
    assert not (tmp_path / "out").exists()


def test_the_table_is_there_as_parquet_too_where_that_can_be_written(
    file: Path, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    done = swept(file, tmp_path / "out")
    rows = parquet.read_table(done.table.with_suffix(".parquet")).to_pylist()
    lines = done.table.read_text("utf-8").splitlines()
    assert len(rows) == len(lines) - 1 and list(rows[0]) == lines[0].split(",")
    assert verify(done.run).verdict == "pass"


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
