"""Cells that another process did ahead of the run: taken over once, in the run's own order."""

from __future__ import annotations

from pathlib import Path

import pytest

from purpleteam.core.errors import NeedsFailed
from purpleteam.core.records import Note, Record
from purpleteam.core.runfolder import DRAFTS, Claimed, Drafts, RunFolder


def note(name: str) -> Note:
    return Note(name=name, facts={})


def never() -> list[Record]:
    raise AssertionError("this was done already")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", {"seed": 0})


@pytest.fixture
def ahead(run: RunFolder) -> Drafts:
    return Drafts(run.path)


def left(run: RunFolder) -> list[Path]:
    return list((run.path / DRAFTS).glob("*.json"))


@pytest.mark.parametrize("made", [[note("found")], []])
def test_a_drafted_cell_is_taken_over_and_its_draft_removed(
    run: RunFolder, ahead: Drafts, made: list[Record]
) -> None:
    ahead.cell("data", {"of": 1}, lambda: made)
    assert run.records() == [] and len(left(run)) == 1
    assert run.cell("data", {"of": 1}, never) == made == run.records()
    assert not list((run.path / DRAFTS).iterdir())


def test_records_stand_in_the_order_of_the_run(run: RunFolder, ahead: Drafts) -> None:
    for name in ("second", "first"):
        ahead.cell("data", {"of": name}, lambda name=name: [note(name)])
    for name in ("first", "second"):
        run.cell("data", {"of": name}, never)
    assert [one.name for one in run.records()] == ["first", "second"]


def test_what_is_drafted_or_finished_is_not_done_ahead_again(run: RunFolder, ahead: Drafts) -> None:
    drafted = ahead.cell("data", {"of": 1}, lambda: [note("draft")])
    assert ahead.cell("data", {"of": 1}, never) == drafted
    run.cell("data", {"of": 1}, never)
    assert ahead.cell("data", {"of": 1}, never) == drafted
    run.cell("data", {"of": 2}, lambda: [note("done")])
    assert Drafts(run.path).cell("data", {"of": 2}, never) == [note("done")]


def test_a_draft_whose_file_changed_or_that_is_damaged_is_no_draft(
    run: RunFolder, ahead: Drafts
) -> None:
    figure = run.path / "figures" / "one.svg"
    figure.write_text("<svg/>")
    ahead.cell("data", {"of": 1}, lambda: [ahead.artefact(figure, "n-1")])
    figure.write_text("<svg>another</svg>")
    assert run.cell("data", {"of": 1}, lambda: [note("again")]) == [note("again")]
    ahead.cell("data", {"of": 2}, lambda: [note("draft")])
    left(run)[0].write_text('[{"kind": "nothing"}]')
    assert run.cell("data", {"of": 2}, lambda: [note("again")]) == [note("again")]


def test_two_workers_share_the_cells_and_none_is_done_twice(run: RunFolder) -> None:
    first, second = Drafts(run.path), Drafts(run.path)

    def meanwhile() -> list[Record]:
        with pytest.raises(Claimed) as claimed:
            second.cell("data", {"of": 1}, never)
        assert second.taken(claimed.value.key)
        return [note("first")]

    assert first.cell("data", {"of": 1}, meanwhile) == second.cell("data", {"of": 1}, never)


def test_what_failed_there_is_not_tried_here_and_what_waits_gives_its_claim_back(
    run: RunFolder,
) -> None:
    first, second = Drafts(run.path), Drafts(run.path)
    with pytest.raises(ZeroDivisionError):
        first.cell("data", {"what": "divide"}, lambda: [note(str(1 / 0))])
    with pytest.raises(NeedsFailed, match="'divide'"):
        second.cell("data", {"what": "divide"}, never)

    def waits() -> list[Record]:
        raise Claimed("another")

    with pytest.raises(Claimed):
        first.cell("data", {"of": 2}, waits)
    assert second.cell("data", {"of": 2}, lambda: [note("second")]) == [note("second")]


def test_drafts_outlive_a_stop_and_go_with_the_end(run: RunFolder, ahead: Drafts) -> None:
    ahead.cell("data", {"of": 1}, lambda: [note("draft")])
    run.finish("stopped")
    assert RunFolder.resume(run.path, {"seed": 0}).cell("data", {"of": 1}, never)
    ahead.cell("data", {"of": 2}, lambda: [note("nobody came for")])
    run.finish("finished")
    assert not (run.path / DRAFTS).exists()
