"""The checks on a run folder: what they pass, and everything that they must not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from purpleteam.core.checks import CHECKS, Check, Target, run_check
from purpleteam.core.ledger import Ledger
from purpleteam.core.records import CheckResult, Note
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.verification import RunLedger, RunLineage

ASKED = {"dataset": "digits", "seed": 0}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(tmp_path / "run", ASKED)
    dataset = Note(name="dataset", facts={"digest": "sha256:0"})
    made.cell("data", {}, lambda: [dataset])
    made.cell("models", {}, lambda: [Note(name="trained", facts={"epochs": 3})])
    made.finish("finished")
    return made


def verdict(check: type[Check], run: RunFolder) -> CheckResult:
    return run_check(check(), Target(run=run.path))


@pytest.mark.parametrize("check", [RunLedger, RunLineage])
def test_a_whole_run_passes_finished_or_not(run, check):
    assert CHECKS[check.id] is check
    assert verdict(check, run).verdict == "pass"
    RunFolder.resume(run.path, ASKED)
    assert verdict(check, run).verdict == "pass"


def test_an_edited_line_fails(run):
    path = run.path / "records.jsonl"
    path.write_text(path.read_text().replace('"epochs":3', '"epochs":4'))
    found = verdict(RunLedger, run)
    assert found.verdict == "fail"
    assert found.message == "records.jsonl: the hash chain breaks at line 3"


def test_a_missing_end_of_a_finished_run_fails(run):
    Ledger(run.path / "records.jsonl").keep(2)
    found = verdict(RunLedger, run)
    assert found.verdict == "fail"
    assert found.message == "run.json tells of 4 lines, records.jsonl holds 2"


def test_lines_that_came_after_the_end_fail(run):
    Ledger(run.path / "records.jsonl").append([Note(name="late", facts={}).to_json()])
    assert verdict(RunLedger, run).verdict == "fail"


def test_a_run_without_records_fails(tmp_path):
    empty = RunFolder.create(tmp_path / "empty", ASKED)
    assert verdict(RunLedger, empty).verdict == "fail"


@pytest.mark.parametrize("missing", ["actor", "versions", "machine"])
def test_a_run_that_does_not_say_who_or_with_what_fails(run, missing):
    path = run.path / "run.json"
    path.write_text(json.dumps({key: val for key, val in run.info.items() if key != missing}))
    found = verdict(RunLineage, run)
    assert (found.verdict, found.message) == ("fail", f"missing: {missing}")


def test_a_run_without_seed_or_data_digest_fails(tmp_path):
    run = RunFolder.create(tmp_path / "run", {"dataset": "digits"})
    assert verdict(RunLineage, run).message == "missing: seed, data digest"


def test_a_folder_that_is_no_run_does_not_pass(tmp_path):
    nothing = RunFolder(tmp_path)
    assert verdict(RunLedger, nothing).verdict == "fail"
    assert verdict(RunLineage, nothing).verdict == "error"
