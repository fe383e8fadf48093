"""Run folders to report on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from purpleteam.core.records import Record
from purpleteam.core.runfolder import RunFolder
from purpleteam.report import ReportFiles, render
from report_records import write_full_run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a run folder holding the records it is given."""

    def make(*records: Record) -> Path:
        run = RunFolder.create(tmp_path / "run", {"name": "demo", "seed": 0})
        run.cell("all", {"seed": 0}, lambda: list(records))
        run.finish("finished")
        return run.path

    return make


@pytest.fixture(scope="session")
def kept_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every kind of record, written once; nobody changes it."""
    return write_full_run(tmp_path_factory.mktemp("report") / "full")


@pytest.fixture(scope="session")
def report(kept_run: Path) -> ReportFiles:
    """The report on that run, rendered once."""
    return render(kept_run)


@pytest.fixture(scope="session")
def html(report: ReportFiles) -> str:
    """Its page."""
    return report.html.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def markdown(report: ReportFiles) -> str:
    """Its text."""
    return report.markdown.read_text(encoding="utf-8")


@pytest.fixture
def own_run(kept_run: Path, tmp_path: Path) -> Path:
    """A copy of that run that a test may change."""
    return Path(shutil.copytree(kept_run, tmp_path / "own"))
