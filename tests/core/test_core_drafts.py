"""Cells that are done ahead of the run: taken over once, in the run's own order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from purpleteam.core.errors import NeedsFailed, RunError
from purpleteam.core.records import Note, Record
from purpleteam.core.runfolder import DRAFTS, Drafts, Made, Missing, RunFolder, key_of


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


def draft(drafts: Drafts, of: Any, records: Sequence[Record]) -> list[Record]:
    """Do a cell as a worker does, and leave it as the driver does."""
    key = key_of("data", {"of": of})
    with pytest.raises(Made) as made:
        Drafts(drafts.path, wanted=[key]).cell("data", {"of": of}, lambda: records)
    drafts.leave(key, made.value.records)
    return made.value.records


@pytest.mark.parametrize("made", [[note("found")], []])
def test_a_drafted_cell_is_taken_over_and_its_draft_removed(
    run: RunFolder, ahead: Drafts, made: list[Record]
) -> None:
    draft(ahead, 1, made)
    assert run.records() == [] and len(left(run)) == 1
    assert run.cell("data", {"of": 1}, never) == made == run.records()
    assert not list((run.path / DRAFTS).iterdir())


def test_records_stand_in_the_order_of_the_run(run: RunFolder, ahead: Drafts) -> None:
    for name in ("second", "first"):
        draft(ahead, name, [note(name)])
    for name in ("first", "second"):
        run.cell("data", {"of": name}, never)
    assert [one.name for one in run.records()] == ["first", "second"]


def test_what_is_drafted_or_finished_is_not_done_ahead_again(run: RunFolder, ahead: Drafts) -> None:
    drafted = draft(ahead, 1, [note("draft")])
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
    draft(ahead, 1, [ahead.artefact(figure, "n-1")])
    figure.write_text("<svg>another</svg>")
    assert run.cell("data", {"of": 1}, lambda: [note("again")]) == [note("again")]
    draft(ahead, 2, [note("draft")])
    left(run)[0].write_text('[{"kind": "nothing"}]')
    assert run.cell("data", {"of": 2}, lambda: [note("again")]) == [note("again")]


def inside(drafts: Drafts, work: Callable[[], list[Record]]) -> list[Record]:
    """Return a cell that needs another one in the middle of its work."""
    return drafts.cell("data", {"of": "outer"}, lambda: drafts.cell("data", {"of": "in"}, work))


def test_a_cell_that_is_not_wanted_is_missing_and_so_is_one_inside_it(run: RunFolder) -> None:
    outer, inner = key_of("data", {"of": "outer"}), key_of("data", {"of": "in"})
    with pytest.raises(Missing) as missing:
        inside(Drafts(run.path), never)
    assert missing.value.key == outer
    with pytest.raises(Missing) as missing:
        inside(Drafts(run.path, wanted=[outer]), never)
    assert missing.value.key == inner
    with pytest.raises(Made) as made:
        inside(Drafts(run.path, wanted=[outer, inner]), lambda: [note("inner")])
    Drafts(run.path).leave(inner, made.value.records)
    with pytest.raises(Made) as made:
        inside(Drafts(run.path, wanted=[outer]), never)
    assert made.value.records == [note("inner")]


def test_what_failed_ahead_fails_once_and_what_needs_it_says_so(
    run: RunFolder, ahead: Drafts
) -> None:
    facts = {"what": "divide"}
    run.failed_before = ahead.failed_before = {key_of("data", facts): "division by zero"}
    with pytest.raises(NeedsFailed, match="'divide'"):
        ahead.cell("data", facts, never)
    with pytest.raises(RunError, match="division by zero"):
        run.cell("data", facts, never)
    with pytest.raises(NeedsFailed, match="'divide'"):
        run.cell("data", facts, never)


def test_drafts_outlive_a_stop_and_go_with_the_end(run: RunFolder, ahead: Drafts) -> None:
    draft(ahead, 1, [note("draft")])
    run.finish("stopped")
    assert RunFolder.resume(run.path, {"seed": 0}).cell("data", {"of": 1}, never)
    draft(ahead, 2, [note("nobody came for")])
    run.finish("finished")
    assert not (run.path / DRAFTS).exists()
