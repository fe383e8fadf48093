"""The checks that searches for backdoors found nothing in what is trained and served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from purpleteam.core.checks import CHECKS, Target, run_check
from purpleteam.core.records import Note
from purpleteam.core.runfolder import RunFolder
from purpleteam.defences.checks import MODEL_SCAN, TRAINING_SET_SCAN

SEARCHES = (("model.backdoor-scan", MODEL_SCAN), ("data.poison-search", TRAINING_SET_SCAN))


def verdict(folder: Path, check: str, *notes: tuple[str, dict[str, Any]]) -> str:
    run = RunFolder.create(folder / "run", {})
    made = [Note(name=name, facts={"subject": "sha256:1"} | facts) for name, facts in notes]
    run.cell("defences", {}, lambda: made)
    return run_check(CHECKS[check](), Target(run=run.path)).verdict


@pytest.mark.parametrize(("check", "search"), SEARCHES)
def test_a_search_of_ours_that_found_nothing_passes(
    tmp_path: Path, check: str, search: str
) -> None:
    assert verdict(tmp_path, check, (search, {"own": True, "backdoored": False})) == "pass"


@pytest.mark.parametrize(("check", "search"), SEARCHES)
def test_one_find_among_several_fails(tmp_path: Path, check: str, search: str) -> None:
    nothing = (search, {"own": True, "backdoored": False, "model": "a"})
    found = (search, {"own": True, "backdoored": True, "model": "b"})
    assert verdict(tmp_path, check, nothing, found) == "fail"


@pytest.mark.parametrize(("check", "search"), SEARCHES)
def test_what_is_not_established_proves_nothing(tmp_path: Path, check: str, search: str) -> None:
    nothing = (search, {"own": True, "backdoored": False, "model": "a"})
    unsure = (search, {"own": True, "backdoored": None, "reasons": ["5 images"], "model": "b"})
    assert verdict(tmp_path, check, nothing, unsure) == "fail"


@pytest.mark.parametrize(("check", "search"), SEARCHES)
def test_the_lab_proves_nothing_about_what_is_served(
    tmp_path: Path, check: str, search: str
) -> None:
    assert verdict(tmp_path, check, (search, {"own": False, "backdoored": False})) == "skipped"
    assert verdict(tmp_path / "other", check, ("something else", {"own": True})) == "skipped"
