"""Cells that engines do ahead of a run: the same records, none done twice, failures told."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tiny_sets import TinySet

from purpleteam.core.errors import PurpleError, RunError
from purpleteam.core.runfolder import DRAFTS, RunFolder
from purpleteam.pipeline.ahead import work_ahead
from purpleteam.pipeline.cells import do_cell
from purpleteam.pipeline.config import RunConfig, resolve
from purpleteam.pipeline.engines import ENGINES, Engine, Job, Outcome
from purpleteam.pipeline.engines._job import do
from purpleteam.pipeline.run import prepare, run

SETTINGS = (
    *('architecture="small_cnn"', 'device="cpu"', "backdoors.epochs=2", "backdoors.trusted=10"),
    *('backdoors.attacks=["badnets:count=20,trigger.size=4"]', "backdoors.plant_again=[2]"),
    *('backdoors.repairs=["fine_tune:steps=5"]', "backdoors.search_training_set=false"),
    "processes=1",
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, for what travels lies below it."""
    monkeypatch.chdir(tmp_path)


def asked(*settings: str) -> RunConfig:
    """Return a request for the lab, on a set of its own."""
    few = Path("few")
    if not few.exists():
        TinySet(3, 120, ("all", "all", "all")).write(few)
    return resolve("backdoors", None, (f'dataset="{few}"', *SETTINGS, *settings))


class Noted:
    """Does jobs in this process, the newest first, and notes them."""

    def __init__(self) -> None:
        self.keys = Counter[str]()
        self.jobs: list[Job] = []

    def run(self, jobs: deque[Job]) -> Iterator[Outcome]:
        while jobs:
            job = jobs.pop()
            outcome = do(job)
            self.keys[job.key] += not outcome.needs
            self.jobs.append(job)
            yield outcome

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the metrics of the run in one process."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return RunFolder.open(run(asked(), Path("run")).run).metrics()


@pytest.mark.parametrize(("engine", "workers"), [("inline", 2), ("ray", 2)])
def test_every_engine_leaves_the_records_of_one_process(
    engine: str, workers: int, alone: str
) -> None:
    if engine == "ray" and find_spec("ray") is None:
        pytest.skip("Ray is not installed; try: pip install 'purpleteam[ray]'")
    done = RunFolder.open(run(asked(), Path("run"), engine=engine, workers=workers).run)
    assert not (done.path / DRAFTS).exists()
    assert done.metrics() == alone
    assert "fine_tune" in alone and "model-scan" in alone


def test_no_cell_is_done_twice_in_whatever_order_and_the_run_takes_all_over(
    monkeypatch: pytest.MonkeyPatch, alone: str
) -> None:
    noted = Noted()
    monkeypatch.setitem(ENGINES._items, "noted", lambda **_: noted)
    done = RunFolder.open(run(asked(), Path("run"), engine="noted").run)
    assert done.metrics() == alone
    assert set(noted.keys.values()) == {1} and noted.closed
    assert len(noted.keys) > 5


def failing(monkeypatch: pytest.MonkeyPatch, engine: Engine, *settings: str) -> dict[str, Any]:
    monkeypatch.setitem(ENGINES._items, "mine", lambda **_: engine)
    return run(asked(*settings), Path("run"), engine="mine").to_json()


def test_what_crashed_is_a_failure_of_the_run_and_is_not_tried_by_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Crashing(Noted):
        def run(self, jobs: deque[Job]) -> Iterator[Outcome]:
            for outcome in super().run(jobs):
                made = "fine_tune" in str(outcome.records)
                yield Outcome(key=outcome.key, error="crashed 3 times") if made else outcome

    told = failing(monkeypatch, Crashing())
    assert [failure["reason"] for failure in told["failures"]] == ["crashed 3 times"]


def test_what_goes_wrong_before_a_cell_is_told_by_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    told = failing(monkeypatch, Noted(), 'backdoors.attacks=["badnets:count=5000"]')
    assert [failure["what"] for failure in told["failures"]] == [
        "backdoors badnets:count=5000, seed 0"
    ]
    assert "5000" in told["failures"][0]["reason"]


def test_other_images_or_another_version_elsewhere_are_refused() -> None:
    state, noted = prepare(asked(), Path("run")), Noted()
    work_ahead(state, noted)
    options = dict(noted.jobs[0].options)
    with pytest.raises(RunError, match="is no piece of this run here"):
        do_cell(options | {"path": ("defences", "another part")})
    with pytest.raises(RunError, match=r"is sha256:\w+ here, and sha256:1 where"):
        do_cell(options | {"data": "sha256:1"})


def test_an_unknown_engine_leaves_no_folder() -> None:
    with pytest.raises(PurpleError, match="unknown engine 'beside'; known: inline, ray"):
        run(replace(asked(), processes=2), Path("run"), engine="beside")
    with pytest.raises(PurpleError, match="--address 'x:1' is for --engine ray"):
        run(asked(), Path("run"), address="x:1")
    assert not Path("run").exists()
