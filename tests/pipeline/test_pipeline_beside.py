"""The lab's jobs in several processes: the same records, an error told, and nobody left behind."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from purpleteam.core.errors import RunError
from purpleteam.core.runfolder import DRAFTS, RunFolder
from purpleteam.pipeline import beside as module
from purpleteam.pipeline.beside import Job, beside
from purpleteam.pipeline.config import resolve
from purpleteam.pipeline.helper import serve
from purpleteam.pipeline.run import prepare, run
from purpleteam.pipeline.state import Run

SETTINGS = (
    *('dataset="digits"', 'architecture="small_cnn"', 'device="cpu"', "backdoors.epochs=2"),
    *('backdoors.attacks=["badnets:count=60,trigger.size=4"]', "backdoors.trusted=50"),
    *('backdoors.repairs=["fine_tune"]', "backdoors.plant_again=[2]"),
    "backdoors.search_training_set=false",
)


def lab(folder: Path, *settings: str) -> Run:
    return prepare(resolve("backdoors", None, (*SETTINGS, *settings)), folder)


def test_two_processes_leave_the_records_of_one(tmp_path: Path) -> None:
    metrics = []
    for processes in (1, 2):
        asked = resolve("backdoors", None, (*SETTINGS, f"backdoors.processes={processes}"))
        done = RunFolder.open(run(asked, tmp_path / str(processes)).run)
        assert not (done.path / DRAFTS).exists()
        metrics.append(done.metrics())
    assert metrics[0] == metrics[1]
    assert "fine_tune" in metrics[0] and "model-scan" in metrics[0]


def test_a_job_leaves_drafts_and_the_run_untouched(tmp_path: Path) -> None:
    work, answers = lab(tmp_path / "run"), io.StringIO()
    start = {"run": str(work.folder.path), "command": ["purple", "run"]}
    serve(start, [json.dumps(asdict(Job("learn", 0)))], answers)
    assert json.loads(answers.getvalue()) == {}
    assert work.folder.records() == []
    (draft,) = (work.folder.path / DRAFTS).iterdir()
    assert json.loads(draft.read_text())[0]["command"] == ["purple", "run"]


def test_what_goes_wrong_there_leaves_no_draft_for_the_run_meets_it_itself(tmp_path: Path) -> None:
    work, answers = lab(tmp_path / "run"), io.StringIO()
    start = {"run": str(work.folder.path), "command": []}
    serve(start, [json.dumps(asdict(Job("learn", 0, "nosuch")))], answers)
    assert "unknown poison attack 'nosuch'" in json.loads(answers.getvalue())["failed"]
    assert not (work.folder.path / DRAFTS).exists()


def test_a_process_that_ends_is_an_error_and_no_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = replace(lab(tmp_path / "run"), processes=2)
    monkeypatch.setattr(module, "HELPER", "this")  # ends at once, having printed something
    with pytest.raises(RunError, match="to learn has ended"), beside(work) as together:
        together([Job("learn", 0), Job("learn", 1), Job("learn", 2)])
