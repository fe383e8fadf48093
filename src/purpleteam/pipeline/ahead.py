"""The cells of a run done ahead by an engine, and left as drafts: then the run takes them over.

The run goes through its stages as far as what is done allows, and each piece stops at the first
cell that it lacks. These cells are the engine's jobs; when one ends, the pieces that waited for it
go on. So no cell is done twice, whoever does it, and the records are the same as of a run alone.
"""

from __future__ import annotations

import pathlib
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from purpleteam.core.progress import SILENT
from purpleteam.core.records import record_from_json
from purpleteam.core.runfolder import Drafts, Missing
from purpleteam.pipeline.cells import Pieces
from purpleteam.pipeline.engines import CELL, Engine, Job, Outcome, write_file
from purpleteam.pipeline.engines.inline import Beside
from purpleteam.pipeline.stages.serve import ask_app
from purpleteam.pipeline.stages.threats import check_app
from purpleteam.pipeline.state import Run

AHEAD = ("models", "attacks", "certify", "defences", "privacy")
"""The stages that are done ahead: the later ones read the records of the earlier."""
Path = tuple[str, ...]  # of a piece: its stage, its part, and what the pieces inside are called
WAITING = {"threats": check_app, "serve": ask_app}
"""Parts of later stages that need none of the others and mostly wait for the app."""


def work_ahead(run: Run, engine: Engine) -> None:
    """Have an engine draft the cells of the first stages; the run is told which of them failed."""
    waiting: list[Path] = [
        (stage, part.__name__.replace("_", " "))
        for stage, part in WAITING.items()
        if stage in run.config.stages and run.config.models.served is not None
    ]
    quiet = replace(run, progress=SILENT)
    stages: list[Path] = [(stage,) for stage in AHEAD]
    drivers = [(_Driver(run, engine), stages)]
    if waiting:
        drivers.append((_Driver(quiet, Beside(1, run.threads)), waiting))
    failed: dict[str, str] = {}
    with ThreadPoolExecutor(len(drivers)) as pool:  # this thread waits, and hears of a stop
        try:
            for done in [pool.submit(driver.draft, paths) for driver, paths in drivers]:
                failed |= done.result()
        finally:
            for driver, _ in drivers:
                driver.engine.close()
    run.folder.failed_before = failed


def from_here(path: pathlib.Path) -> str:
    """Return a path as it is named from the current folder, where it is inside of it."""
    whole, here = path.resolve(), pathlib.Path.cwd()
    return str(whole.relative_to(here) if whole.is_relative_to(here) else whole)


class _Driver:
    """Finds the cells that can be done, gives them to an engine, and leaves the drafts."""

    def __init__(self, run: Run, engine: Engine) -> None:
        self.drafts, self.engine, self.progress = Drafts(run.folder.path), engine, run.progress
        self.pieces = Pieces(replace(run, folder=self.drafts, models={}))
        self.asked: dict[str, Any] = {
            "run": from_here(self.drafts.path),
            "config": asdict(run.config),
            "data": run.dataset.digest,
            "command": list(run.command),
        }
        self.jobs = deque[Job]()
        self.given: dict[str, Job] = {}
        self.after: dict[str, list[Callable[[], None]]] = {}  # what goes on when a cell has ended
        self.failed: dict[str, str] = {}
        self.drafts.failed_before = self.failed

    def draft(self, paths: Iterable[Path]) -> dict[str, str]:
        """Have all cells of pieces done that can be; return why others failed, by key."""
        for path in paths:
            self.go_through(path)
        shown = 0.0
        with self.progress.task("cells, in any order", 1) as task:
            for done, outcome in enumerate(self.engine.run(self.jobs), start=1):
                self.ended(outcome)
                share = max(shown, done / (done + len(self.after)))
                task.advance(share - shown, done=done)
                shown = share
        return self.failed

    def go_through(self, path: Path) -> None:
        """Go through a piece and all inside it, as far as what is done allows."""
        with suppress(Exception, SystemExit):  # the run meets it itself, fails at it and says so
            try:
                inner = self.pieces.inside(path)
            except Missing as missing:
                self.have(missing.key, path, (missing.key,), partial(self.go_through, path))
            else:
                for piece in inner:
                    self.go_through((*path, piece.what))

    def have(self, key: str, path: Path, cells: Path, after: Callable[[], None]) -> None:
        """Have a cell done, once, and something after it."""
        if key not in self.given:
            told = self.asked | {"path": path, "cells": cells}
            self.given[key] = Job(key=key, verb=CELL, options=told)
            self.jobs.append(self.given[key])
        elif key not in self.after:  # it has ended, and yet its files are not there
            return
        self.after.setdefault(key, []).append(after)

    def ended(self, outcome: Outcome) -> None:
        """Keep what became of a cell, and go on with what waited for it."""
        job, needs = self.given[outcome.key], outcome.needs
        if needs and needs not in self.failed:
            again = partial(self.jobs.append, job)
            if self.drafts.has(needs):  # it ended while the worker looked
                again()
            else:  # inside this one, and first
                self.have(needs, job.options["path"], (*job.options["cells"], needs), again)
            return
        if needs or outcome.error:
            self.failed[outcome.key] = outcome.error or self.failed[needs]
        else:
            for name, content in outcome.files.items():  # made on another machine
                write_file(self.drafts.path / name, content)
            self.drafts.leave(outcome.key, list(map(record_from_json, outcome.records)))
        for go_on in self.after.pop(outcome.key):
            go_on()
