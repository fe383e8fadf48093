"""The run folder: work is done once, a killed run goes on, and another request is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from core_records import NOTES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from purpleteam.core.digest import sha256_file
from purpleteam.core.errors import NeedsFailed, RunError
from purpleteam.core.ledger import Ledger
from purpleteam.core.machine import machine, versions
from purpleteam.core.records import Artefact, Failure, Note, Record
from purpleteam.core.runfolder import CELL, FOLDERS, RunFolder

ASKED = {"dataset": "digits", "seed": 0, "evasion": {"curve": (0.1, 0.2)}}


def note(name: str, value: object = 1) -> Note:
    return Note(name=name, facts={"value": value}, cost={"seconds": 0.5})


class Work:
    """A piece of work that counts how often it is done."""

    def __init__(self, *records: Record) -> None:
        self.records = records
        self.done = 0

    def __call__(self) -> list[Record]:
        self.done += 1
        return list(self.records)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", ASKED)


@pytest.fixture
def figure(run: RunFolder) -> Callable[[], list[Record]]:
    """Work that writes a file and says so."""

    def draw() -> list[Record]:
        path = run.path / "figures" / "one.svg"
        path.write_text("<svg/>")
        return [note("drawn"), run.artefact(path, "n-1")]

    return draw


def test_a_new_run_says_what_was_asked_with_what_and_by_whom(run):
    info = run.info
    assert info["asked"] == {**ASKED, "evasion": {"curve": [0.1, 0.2]}}
    assert (info["status"], info["artefacts"]) == ("running", {})
    assert info["actor"]
    assert info["versions"] == versions()
    assert info["machine"] == machine()
    assert all((run.path / name).is_dir() for name in FOLDERS)


def test_versions_and_machine_name_no_machine():
    assert {"python", "purpleteam", "numpy"} <= set(versions())
    assert set(machine()) == {"system", "processor", "cores", "kernels"}


def test_a_cell_is_done_once(run):
    work = Work(note("a"), note("b"))
    first = run.cell("data", {"seed": 0}, work)
    again = run.cell("data", {"seed": 0}, work)
    elsewhere = RunFolder.open(run.path).cell("data", {"seed": 0}, work)
    assert first == again == elsewhere == [note("a"), note("b")]
    assert work.done == 1


@pytest.mark.parametrize("other", [("data", {"seed": 1}), ("models", {"seed": 0}), ("data", {})])
def test_a_cell_that_depends_on_something_else_is_another(run, other):
    work = Work(note("a"))
    run.cell("data", {"seed": 0}, work)
    run.cell(*other, work)
    assert work.done == 2


def test_a_cell_without_records_is_done_once_too(run):
    work = Work()
    assert run.cell("data", {}, work) == run.cell("data", {}, work) == []
    assert work.done == 1


def test_a_cell_that_fails_leaves_nothing_and_is_done_again_by_a_resumed_run(run):
    def fail() -> list[Record]:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        run.cell("data", {}, fail)
    assert run.records() == []
    with pytest.raises(NeedsFailed, match="needs 'data', which failed"):
        run.cell("data", {}, fail)
    again = RunFolder.resume(run.path, ASKED)
    assert again.cell("data", {}, Work(note("a"))) == [note("a")]


def test_a_failure_is_a_record_until_the_run_is_resumed(run):
    failure = Failure(stage="data", what="describe", reason="no images")
    run.failed(failure)
    assert RunFolder.open(run.path).records() == [failure]
    assert RunFolder.resume(run.path, ASKED).records() == []


def test_a_note_that_would_close_its_cell_is_refused(run):
    with pytest.raises(ValueError, match="a note cannot be named 'cell'"):
        run.cell("data", {}, Work(note("a"), note("cell")))
    assert run.records() == []


def test_a_cell_inside_a_cell_is_one_by_itself(run):
    inner, outer = Work(note("inner")), Work(note("outer"))

    def both() -> list[Record]:
        run.cell("models", {}, inner)
        return outer()

    run.cell("attacks", {}, both)
    again = RunFolder.resume(run.path, ASKED)
    assert again.cell("models", {}, inner) == [note("inner")]
    assert again.cell("attacks", {}, both) == [note("outer")]
    assert (inner.done, outer.done) == (1, 1)


def test_records_are_those_of_all_cells_without_their_closing_lines(run):
    run.cell("data", {}, Work(note("a")))
    run.cell("models", {}, Work(note("b"), note("c")))
    assert RunFolder.open(run.path).records() == [note("a"), note("b"), note("c")]


def test_metrics_leave_out_what_varies(run):
    run.cell("data", {}, Work(note("a")))
    assert run.metrics() == '{"facts":{"value":1},"kind":"note","name":"a"}\n'


def test_an_artefact_is_named_by_path_and_digest_in_record_and_run(run, figure):
    made = run.cell("report", {}, figure)[1]
    digest = sha256_file(run.path / "figures" / "one.svg")
    assert made == Artefact(path="figures/one.svg", digest=digest, made_by="n-1")
    assert run.info["artefacts"] == {"figures/one.svg": digest}


@pytest.mark.parametrize("damage", [lambda path: path.write_text("x"), Path.unlink])
def test_a_cell_whose_file_changed_is_done_again_and_counts_once(run, figure, damage):
    run.cell("report", {}, figure)
    run.cell("later", {}, Work(note("later")))
    before = run.metrics()
    damage(run.path / "figures" / "one.svg")
    again = RunFolder.resume(run.path, ASKED)
    again.cell("report", {}, figure)
    assert (run.path / "figures" / "one.svg").read_text() == "<svg/>"
    assert again.metrics() == before


def test_an_artefact_that_a_kill_kept_out_of_run_json_is_there_after_resume(run, figure):
    run.cell("report", {}, figure)
    path = run.path / "run.json"
    path.write_text(json.dumps({**run.info, "artefacts": {}}))
    assert list(RunFolder.resume(run.path, ASKED).info["artefacts"]) == ["figures/one.svg"]


def test_a_run_is_whole_again_wherever_it_was_killed(run, monkeypatch):
    monkeypatch.setattr("os.fsync", int)  # hundreds of them take seconds
    work = [Work(note("a"), note("b")), Work(), Work(note("c"))]
    for number, one in enumerate(work):
        run.cell("data", {"number": number}, one)
    records, metrics = run.path / "records.jsonl", run.metrics()
    whole = records.read_bytes()
    for cut in range(0, len(whole), 11):
        records.write_bytes(whole[:cut])
        again = RunFolder.resume(run.path, ASKED)
        for number, one in enumerate(work):
            again.cell("data", {"number": number}, one)
        assert again.metrics() == metrics
        assert records.read_bytes() == whole


def test_a_half_written_cell_is_dropped_and_the_finished_one_kept(run):
    finished, half = Work(note("a")), Work(note("b"), note("c"))
    run.cell("data", {}, finished)
    run.cell("models", {}, half)
    ledger = Ledger(run.path / "records.jsonl")
    ledger.keep(len(ledger.read()) - 1)  # the closing line is not there yet
    again = RunFolder.resume(run.path, ASKED)
    assert again.records() == [note("a")]
    again.cell("data", {}, finished)
    again.cell("models", {}, half)
    assert (finished.done, half.done) == (1, 2)
    assert again.records() == [note("a"), note("b"), note("c")]


def test_a_run_under_way_shows_what_is_written_so_far(run):
    run.cell("data", {}, Work(note("a"), note("b")))
    Ledger(run.path / "records.jsonl").keep(1)
    assert RunFolder.open(run.path).records() == [note("a")]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    cells=st.lists(NOTES.filter(lambda notes: all(one.name != CELL for one in notes)), max_size=4)
)
def test_what_is_read_is_what_was_found(tmp_path_factory, cells):
    run = RunFolder.create(tmp_path_factory.mktemp("any") / "run", ASKED)
    for number, records in enumerate(cells):
        run.cell("data", {"number": number}, Work(*records))
    assert RunFolder.open(run.path).records() == [one for records in cells for one in records]


def test_resume_with_another_request_is_refused_and_names_what_differs(run):
    with pytest.raises(RunError, match=r"differs in: evasion, seed\)"):
        RunFolder.resume(run.path, {**ASKED, "seed": 1, "evasion": {}})
    with pytest.raises(RunError, match=r"differs in: extra\)"):
        RunFolder.resume(run.path, {**ASKED, "extra": None})


def test_resume_takes_the_same_request_from_anywhere(run):
    run.finish("stopped")
    asked = json.loads(json.dumps(ASKED))  # tuples have become lists
    assert RunFolder.resume(run.path, asked).info["status"] == "running"


@pytest.mark.parametrize("left", ["run.json", "records.jsonl"])
def test_create_does_not_write_over_a_run(run, left):
    run.cell("data", {}, Work(note("a")))
    for name in {"run.json", "records.jsonl"} - {left}:
        (run.path / name).unlink()
    with pytest.raises(RunError, match="already holds a run; continue it with --resume"):
        RunFolder.create(run.path, ASKED)


def test_a_folder_without_run_json_is_no_run(tmp_path):
    with pytest.raises(RunError, match="is not a run folder"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"asked": 1}', '"\\ud800'])
def test_a_damaged_run_json_is_a_clear_error(run, content):
    (run.path / "run.json").write_text(content)
    with pytest.raises(RunError, match=r"run\.json"):
        RunFolder.open(run.path)


def test_a_finished_run_names_the_head_of_its_records(run):
    run.cell("data", {}, Work(note("a")))
    run.finish("finished", seconds=1.5)
    info = run.info
    assert (info["status"], info["seconds"]) == ("finished", 1.5)
    assert info["records"] == Ledger(run.path / "records.jsonl").head()


def test_a_run_that_goes_on_names_no_head_until_it_ends(run):
    run.cell("data", {}, Work(note("a")))
    run.finish("stopped")
    assert "records" not in RunFolder.resume(run.path, ASKED).info
    run.finish("finished")
    run.cell("models", {}, Work(note("b")))
    assert "records" not in run.info
