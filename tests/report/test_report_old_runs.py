"""A run of version 1, as it lies in data/schema-1: it verifies, and is read as one of today."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from purpleteam.core.metrics import METRICS
from purpleteam.core.records import Measurement, Note
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.schema import MODEL, ROLES, SCHEMA, misfits
from purpleteam.core.verification import verify
from purpleteam.report import render

OLD = Path(__file__).parent / "data" / "schema-1"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, so that its pages are written elsewhere."""
    return Path(shutil.copytree(OLD, tmp_path_factory.mktemp("old") / "run"))


def roles(path: Path) -> dict[str, str]:
    notes = [one for one in RunFolder.open(path).records() if isinstance(one, Note)]
    found = [note.facts for note in notes if note.name == MODEL]
    return {str(one["model_name"]): str(one["role"]) for one in found}


def test_it_is_of_an_earlier_version_and_verifies_as_it_lies(old: Path) -> None:
    assert RunFolder.open(old).info["schema"] == 1 < SCHEMA
    assert {part.name: part.verdict for part in verify(old).parts if part.verdict != "pass"} == {}


def test_each_model_is_given_the_part_that_its_name_told(old: Path) -> None:
    assert roles(old) == {
        "baseline": "baseline",
        "clean-twin": "clean_twin",
        "clean-twin-kept": "clean_twin",
        "hardened": "hardened",
        "partitions": "partitions",
        "poisoned-kept": "poisoned",
        "poisoned-kept-b": "poisoned",
        "poisoned-relabelled": "poisoned",
    }
    assert set(roles(old).values()) <= set(ROLES)


def test_nothing_on_disk_changes_and_no_recorded_number_either(old: Path) -> None:
    before = (old / "records.jsonl").read_bytes()
    run = RunFolder.open(old)
    kept = [one.id for one in run.records() if not isinstance(one, Note) or one.name != MODEL]
    assert len(kept) == run.metrics().count("\n")
    assert (old / "records.jsonl").read_bytes() == before


def test_it_has_a_report_with_its_numbers(old: Path) -> None:
    page = render(old).html.read_text("utf-8")
    numbers = [one for one in RunFolder.open(old).records() if isinstance(one, Measurement)]
    assert len(numbers) > 100
    assert all(f'"{one.id}"' in page for one in numbers)
    assert "This run" not in page.split("<main")[0]  # no banner


def test_its_records_are_of_known_metrics_and_fields(old: Path) -> None:
    records = RunFolder.open(old).records()
    assert [wrong for one in records for wrong in misfits(one)] == []
    assert {one.name for one in records if isinstance(one, Measurement)} <= set(METRICS)
