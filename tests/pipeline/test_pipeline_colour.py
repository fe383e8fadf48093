"""A run on colour images, and on a thousand classes: the same stages, nothing of digits."""

from __future__ import annotations

from pathlib import Path

import pytest

from purpleteam.core.records import Measurement, Note
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.schema import DATASET, NOT_TESTED
from purpleteam.pipeline.config import resolve
from purpleteam.pipeline.run import RunResult, run

SMALL = (
    "architecture='small_cnn'",
    "models.epochs=2",
    "models.served='standard'",
    "evasion.attacks=['fgsm','pgd:steps=3']",
    "evasion.limit=12",
    "evasion.checked=4",
    "evasion.curve_images=4",
    "poison.epochs=1",
    "certify.epsilons=[2/255,8/255]",
    "certify.limit=4",
    "certify.seconds=0.1",
    "certify.changes=[1]",
    "defences.options={pgd={epochs=1,steps=2,validation_images=6}}",
)


def small_run(dataset: str, folder: Path, *more: str) -> RunResult:
    given = (f"dataset='{dataset}'", f"scan.paths=['{folder.as_posix()}/code']", *SMALL, *more)
    (folder / "code").mkdir()
    (folder / "code" / "fine.py").write_text("print(1)\n")
    return run(resolve("images", None, given), folder / "run")


def measured(result: RunResult, name: str) -> list[Measurement]:
    records = RunFolder.open(result.run).records()
    return [one for one in records if isinstance(one, Measurement) and one.name == name]


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A finished run of every stage on images in colour."""
    folder = tmp_path_factory.mktemp("colour")
    return small_run("drawn_shapes:classes=3,images=60,size=16", folder)


def test_every_stage_works_on_colour(colour: RunResult) -> None:
    assert not colour.failures
    for name in ("robust_accuracy", "certified_accuracy", "attack_success_rate", "base_rate"):
        assert measured(colour, name), name


def test_the_radius_that_counts_is_that_of_colour_images(colour: RunResult) -> None:
    page = (colour.run / "report.md").read_text("utf-8")
    assert {8 / 255} < {one.how["epsilon"] for one in measured(colour, "robust_accuracy")}
    assert "linf ε = 8/255" in page.partition("## Data")[0].replace("\N{NO-BREAK SPACE}", " ")


def test_what_cannot_be_asked_of_colour_images_is_said(colour: RunResult) -> None:
    notes = [one for one in RunFolder.open(colour.run).records() if isinstance(one, Note)]
    left = {
        item["what"]: item["why"]
        for one in notes
        if one.name == NOT_TESTED
        for item in one.facts["items"]
    }
    assert "takes images (1, 28, 28)" in left["The served model on these images"]
    assert "the app reads 10 digits of 28x28x1 pixels" in left["The app on these images"]


def test_classes_are_called_by_their_names(colour: RunResult) -> None:
    page = (colour.run / "report.md").read_text("utf-8")
    assert "| true blue plain disc |" in page and "| red plain star |" in page
    assert "digit" not in page.replace("reads 10 digits", "").lower().partition("## Scan")[0]


def test_a_thousand_classes_give_a_run_and_a_page_of_bounded_size(tmp_path: Path) -> None:
    stages = "stages=['data','models','attacks','certify']"
    found = small_run("drawn_shapes:classes=1000,images=2000,size=16", tmp_path, stages)
    assert not found.failures
    assert found.report.stat().st_size < 3_000_000
    records = RunFolder.open(found.run).records()
    (facts,) = (one.facts for one in records if isinstance(one, Note) and one.name == DATASET)
    assert len(facts["classes"]) == 1000
    assert len(records) < 300
