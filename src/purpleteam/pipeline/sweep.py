"""A sweep: the product of what its file lists, each cell the call of a verb, done once.

A cell waits in a journal, written whole or not at all, until all before it in the file are done or
have failed, and is then taken over: so the records are the same, whoever did the cells and in
whatever order. Only what failed and was done later stands last. What a cell makes is written here
too, and nowhere else: cells that use it begin when it is there.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from purpleteam.core.cell_index import Journal
from purpleteam.core.errors import RunError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.records import Failure, Record
from purpleteam.core.runfolder import DRAFTS, RunFolder
from purpleteam.core.schema import SWEEP_TABLE
from purpleteam.pipeline.engines import ENGINES, Engine, Job, Outcome, write_file
from purpleteam.pipeline.naming import STAGE, Naming
from purpleteam.pipeline.plan import Cell, Plan
from purpleteam.pipeline.sweep_table import write_table
from purpleteam.report import render

fcntl: Any = None
with suppress(ImportError):  # where there is none, nobody is kept out
    import fcntl

NEW, TODO, BEGUN, LEFT, DONE, FAILED = range(6)
"""What became of a cell: `LEFT` in the journal, `DONE` when the records hold it."""
AT_ONCE = 500
"""Cells that are written into the records in one go."""
WAITING = 10_000
"""Jobs that an engine may choose from: more would only need memory."""


@dataclass(frozen=True, kw_only=True)
class Swept:
    """Where the sweep is, and what became of its cells."""

    run: Path
    report: Path
    table: Path
    cells: int
    done: int
    before: int
    """Of those that are done: which were there already."""
    failures: tuple[Failure, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        told = {name: str(getattr(self, name)) for name in ("run", "report", "table")}
        failed = [{"what": one.what, "reason": one.reason} for one in self.failures]
        counts = {name: getattr(self, name) for name in ("cells", "done", "before")}
        return told | counts | {"failures": failed, "seconds": round(self.seconds, 2)}


def run_sweep(
    plan: Plan,
    out: Path,
    *,
    engine: str = "inline",
    workers: int | None = None,
    address: str | None = None,
    gpus: float = 0.0,
    command: tuple[str, ...] = (),
    progress: Progress = SILENT,
    told: Callable[[str], None] = lambda _: None,
) -> Swept:
    """Do the cells that are not in the folder `out` yet, and write its table and its report.

    `told` gets a line on what the sweep will take, and one for each cell that failed.

    Raises:
        RunError: the folder holds another run.
        ConfigError: images or a model that the file names cannot be opened.
        MissingExtra: the engine is not installed.
    """
    started, place = time.perf_counter(), out.resolve()  # a net of the user's may go elsewhere
    naming = Naming(plan, place)
    try:
        keys = [naming.job(cell).key for cell in plan.cells]
    finally:
        naming.close()
    apart = naming.foreign or plan.seconds is not None  # what may end or hold its process
    workers = workers or (1 if apart and engine == "inline" else None)
    with _alone(place):
        folder = _begun(plan, place)
        driver = _Driver(plan, naming, keys, folder or RunFolder(place), command, told, workers)
        state = driver.state
        how: dict[str, Any] = {
            "workers": workers,
            "threads": plan.threads,
            "address": address,
            "gpus": gpus,
        }
        made_by = partial(ENGINES[engine], **how)
        at_work = _engine(made_by, folder) if driver.missing else None  # before there is a folder
        before = sum(known in (LEFT, DONE) for known in state.values())
        with closing(at_work) if at_work else nullcontext():
            folder = driver.folder = folder or RunFolder.create(place, _asked(plan))
            with folder.stoppable("free some, and give the same command again"):
                with closing(driver.left), progress.task(f"{len(state)} cells", len(state)) as task:
                    task.advance(len(state) - sum(driver.missing.values()))
                    driver.fill(jobs := deque[Job]())
                    for outcome in at_work.run(jobs) if at_work else ():
                        ended = driver.ended
                        driver.keep(outcome)
                        driver.take_over(AT_ONCE)
                        driver.fill(jobs)
                        task.advance(driver.ended - ended)
                    driver.take_over()
                failures = _told(place, plan, folder, driver)
    return Swept(
        run=out,
        report=out / "report.html",
        table=out / SWEEP_TABLE,
        cells=len(state),
        done=len(state) - len(failures),
        before=before,
        failures=failures,
        seconds=time.perf_counter() - started,
    )


def _told(place: Path, plan: Plan, folder: RunFolder, driver: _Driver) -> tuple[Failure, ...]:
    """Write table and report; return which cells failed."""
    failures = tuple(driver.failures())
    if failures:
        folder.made_again(STAGE, "failures", failures)
    tables = write_table(place / SWEEP_TABLE, plan, driver.done())
    folder.made_again(STAGE, "table", [folder.artefact(one, "purple sweep") for one in tables])
    folder.finish("incomplete" if failures else "finished")
    render(place)
    return failures


class _Driver:
    """What became of each cell, and which is next: always in the order of the file."""

    def __init__(
        self,
        plan: Plan,
        naming: Naming,
        keys: Sequence[str],
        folder: RunFolder,
        command: tuple[str, ...],
        told: Callable[[str], None],
        workers: int | None,
    ) -> None:
        self.plan, self.naming, self.keys = plan, naming, keys
        self.command, self.told, self.workers = command, told, workers or 1
        self.folder = folder
        self.left = Journal(folder.path / DRAFTS / "cells.jsonl")
        self.state = state = dict.fromkeys(keys, NEW)
        self.ended = 0
        self.failed: dict[str, tuple[str, str]] = {}  # why, and for want of what
        self.begun: dict[str, Cell] = {}
        self.held: Cell | None = None
        self.took: dict[int, float] = {}  # seconds of the first cell of each entry
        self.missing: dict[int, int] = {}
        first: dict[int, Cell] = {}
        for key, cell in zip(keys, plan.cells, strict=True):
            if state[key] != NEW:  # asked for twice
                continue
            if key in naming.unopened:
                self._fail(cell, key, naming.unopened[key])
            elif self.folder.is_done(key):
                state[key] = DONE
            elif key in self.left and self.folder.is_whole(self.left.several([key])[key]):
                state[key] = LEFT
            else:
                state[key] = TODO
                first.setdefault(cell.block, cell)
                self.missing[cell.block] = self.missing.get(cell.block, 0) + 1
        self.todo = chain(first.values(), self._missing())
        self.order = iter(state)
        self.next = next(self.order, None)
        self.batch: list[str] = []

    def _missing(self) -> Iterator[Cell]:
        for key, cell in zip(self.keys, self.plan.cells, strict=True):
            if self.state[key] == TODO:
                yield cell

    def fill(self, jobs: deque[Job]) -> None:
        """Put the jobs that can begin behind those that wait, as far as there is room."""
        while len(jobs) < WAITING and (cell := self.held or next(self.todo, None)):
            self.held = None if self._begin(cell, jobs) else cell
            if self.held:
                return

    def _begin(self, cell: Cell, jobs: deque[Job]) -> bool:
        """Begin a cell, or what it needs; say whether nothing has to be waited for."""
        job = self.naming.job(cell)
        if self.state[job.key] != TODO:
            return True
        for maker in cell.uses.values():
            key = self.naming.job(maker).key
            if self.state[key] == TODO:
                self._begin(maker, jobs)
            if self.state[key] == FAILED:
                self._fail(cell, job.key, f"{maker.what} failed", maker.what)
                return True
            if self.state[key] in (TODO, BEGUN):
                return False
        self.state[job.key] = BEGUN
        self.begun[job.key] = cell
        jobs.append(job)
        return True

    def keep(self, outcome: Outcome) -> None:
        """Keep what a cell made and found, or why it failed."""
        cell = self.begun.pop(outcome.key)
        self._time(cell, outcome.seconds)
        self.ended += not outcome.error
        if outcome.error:
            self._fail(cell, outcome.key, outcome.error)
            return
        for name, content in outcome.files.items():
            write_file(self.folder.path / name, content)
        self.left.leave(outcome.key, _made(outcome, self.command))
        self.state[outcome.key] = LEFT

    def _fail(self, cell: Cell, key: str, why: str, needs: str = "") -> None:
        self.state[key], self.failed[key] = FAILED, (why, needs)
        self.ended += 1
        if not needs:
            self.told(f"failed: {cell.what}: {why}")
        self._time(cell, 0.0)

    def _time(self, cell: Cell, seconds: float) -> None:
        """Tell what all will take when the first cell of each entry has ended."""
        if cell.block in self.took or cell.block not in self.missing:
            return
        self.took[cell.block] = seconds
        rest = {block: count - 1 for block, count in self.missing.items() if count > 1}
        if rest and self.took.keys() >= self.missing.keys():
            seconds = sum(self.took[block] * count for block, count in rest.items())
            span = _span(seconds / self.workers)
            count = sum(rest.values())
            self.told(f"{count} cells to do, about {span} by the first of each kind")

    def take_over(self, at_least: int = 1) -> None:
        """Take over what is done before the first cell that is not, where that is enough."""
        while self.next is not None and self.state[self.next] not in (TODO, BEGUN):
            if self.state[self.next] == LEFT:
                self.batch.append(self.next)
            self.next = next(self.order, None)
        if len(self.batch) < at_least:
            return
        taken = self.folder.take_over(STAGE, self.left.several(self.batch))
        self.left.forget(self.batch)
        for key in self.batch:
            self.state[key] = DONE if key in taken else FAILED
        self.batch = []

    def failures(self) -> Iterator[Failure]:
        """Yield a record for each cell that is not done."""
        for key, cell in zip(self.keys, self.plan.cells, strict=True):
            if self.state[key] == FAILED:
                why, needs = self.failed.pop(key, ("what it made is gone", ""))
                self.state[key] = TODO  # told once, however often the file asks for it
                more: dict[str, Any] = {"needs": needs, "command": self.command}
                yield Failure(stage=STAGE, what=cell.what, reason=why, **more)

    def done(self) -> Iterator[tuple[Cell, Sequence[Record]]]:
        """Yield each cell that is done with its records, once."""
        found: dict[str, Cell] = {}
        for key, cell in zip(self.keys, self.plan.cells, strict=True):
            if self.state[key] == DONE:
                self.state[key], found[key] = TODO, cell  # once, however often it is asked for
            if len(found) == AT_ONCE:
                yield from self._records_of(found)
                found = {}
        yield from self._records_of(found)

    def _records_of(self, found: dict[str, Cell]) -> Iterator[tuple[Cell, Sequence[Record]]]:
        records = self.folder.recorded(list(found))
        yield from ((cell, records[key]) for key, cell in found.items())


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the folder: two sweeps at once would do cells twice, and cut each other's records."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out, os.O_RDONLY)
    except OSError as error:
        remedy = "choose another --out"
        raise RunError(f"{str(out)!r} cannot be written: {error.strerror}; {remedy}") from None
    try:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                remedy = "wait until it ends, or choose another --out"
                raise RunError(f"another sweep is at {str(out)!r}; {remedy}") from None
        yield
    finally:
        os.close(handle)
        with suppress(OSError):  # nothing was written
            out.rmdir()


def _made(outcome: Outcome, command: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the records of an outcome; the last, which says what was called, has its seconds."""
    made = [{**one, "command": list(command)} for one in outcome.records]
    return [*made[:-1], made[-1] | {"cost": {"seconds": outcome.seconds}}]


def _begun(plan: Plan, out: Path) -> RunFolder | None:
    """Return the folder that holds a part of the sweep, if any; refuse another run's."""
    if not (out / "run.json").exists():
        if any(path.is_file() for path in out.rglob("*")):
            raise RunError(f"{str(out)!r} is neither a sweep nor empty; choose another --out")
        return None
    before = RunFolder.open(out).info["asked"]
    if "sweep" not in before:
        raise RunError(f"{str(out)!r} holds a run that is no sweep; choose another --out")
    folder = RunFolder.resume(out, before)
    folder.ask(_asked(plan))
    return folder


def _asked(plan: Plan) -> dict[str, Any]:
    return {"sweep": plan.asked, "threads": plan.threads, "name": plan.name}


def _engine(made_by: Callable[[], Engine], folder: RunFolder | None) -> Engine:
    try:
        return made_by()
    except BaseException:
        if folder is not None:
            folder.finish("stopped")
        raise


def _span(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"
