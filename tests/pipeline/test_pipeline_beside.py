"""Several processes for one run: the same records, errors told, and nobody left behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_sets import TinySet

from purpleteam.core.errors import RunError
from purpleteam.core.runfolder import DRAFTS, RunFolder
from purpleteam.pipeline import beside as module
from purpleteam.pipeline.beside import work, work_ahead
from purpleteam.pipeline.config import RunConfig, resolve
from purpleteam.pipeline.run import prepare, run
from purpleteam.pipeline.state import Run

SETTINGS = (
    *('architecture="small_cnn"', 'device="cpu"', "backdoors.epochs=2", "backdoors.trusted=10"),
    *('backdoors.attacks=["badnets:count=20,trigger.size=4"]', "backdoors.plant_again=[2]"),
    *('backdoors.repairs=["fine_tune:steps=5"]', "backdoors.search_training_set=false"),
)


def asked(folder: Path, *settings: str) -> RunConfig:
    """Return a request for the lab, on a set of its own beside the folder."""
    few = TinySet(3, 120, ("all", "all", "all")).write(folder.with_name("few"))
    return resolve("backdoors", None, (f'dataset="{few}"', *SETTINGS, *settings))


def lab(folder: Path, *settings: str) -> Run:
    return prepare(asked(folder, *settings), folder)


def test_two_processes_leave_the_records_of_one(tmp_path: Path) -> None:
    metrics = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        done = RunFolder.open(run(asked(out, f"processes={processes}"), out).run)
        assert not (done.path / DRAFTS).exists()
        metrics.append(done.metrics())
    assert metrics[0] == metrics[1]
    assert "fine_tune" in metrics[0] and "model-scan" in metrics[0]


def test_a_worker_drafts_every_cell_from_either_end_and_leaves_the_run_untouched(
    tmp_path: Path,
) -> None:
    few = ("backdoors.scan_models=false", "backdoors.repairs=[]")
    drafts = []
    for number in (0, 1):
        state = lab(tmp_path / str(number), *few)
        work({"run": str(state.folder.path), "command": ["purple", "run"]}, number)
        assert state.folder.records() == []
        drafts.append({path.name for path in (state.folder.path / DRAFTS).glob("*.json")})
    assert drafts[0] == drafts[1] != set()


def test_what_goes_wrong_there_leaves_no_draft_for_the_run_meets_it_itself(tmp_path: Path) -> None:
    state = lab(tmp_path / "run", 'backdoors.attacks=["badnets:count=5000"]')
    work({"run": str(state.folder.path), "command": []}, 0)
    drafts = [path.read_text() for path in (state.folder.path / DRAFTS).glob("*.json")]
    trained = [json.loads(text) for text in drafts if "models/" in text]
    assert {one["facts"]["model_name"] for (one, *_) in trained} == {"backdoors-clean"}


def test_a_process_that_ends_is_an_error_and_no_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = replace(lab(tmp_path / "run"), processes=2)
    monkeypatch.setattr(module, "WORKER", "nosuch_module")
    with pytest.raises(RunError, match="a process beside the run ended with code 1"):
        work_ahead(state)
