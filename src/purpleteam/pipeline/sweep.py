"""A sweep: the product of what its file lists, each cell the call of a verb, done once.

A cell is named by all that its result depends on: verb, options, digests of images and model. Its
records wait as a draft, written whole or not at all, until the sweep ends, and are then taken over
in the order of its file: so they are the same, whoever did the cells and in whatever order. Only
what failed and was done later stands last.
"""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from purpleteam.core.errors import RunError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.records import Failure, Measurement, Record, notes_of, record_from_json
from purpleteam.core.runfolder import Drafts, RunFolder, key_of
from purpleteam.core.schema import SWEEP_TABLE
from purpleteam.pipeline.engines import ENGINES, Engine, Job, Outcome
from purpleteam.pipeline.engines._job import forget, subject_of
from purpleteam.pipeline.plan import Cell, Plan, shortly
from purpleteam.report import render
from purpleteam.verbs.verb import ASKED

fcntl: Any = None
with suppress(ImportError):  # where there is none, nobody is kept out
    import fcntl

STAGE = "sweep"
AXES = ("model", "images", "attack", "recipe", "method", "norm", "epsilon", "seed")
"""The order in which the columns of a table stand; others follow."""


@dataclass(frozen=True, kw_only=True)
class Swept:
    """Where the sweep is, and what became of its cells."""

    run: Path
    report: Path
    table: Path
    cells: int
    done: int
    before: int
    """Cells that were there already."""
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
    command: tuple[str, ...] = (),
    progress: Progress = SILENT,
    told: Callable[[str], None] = lambda _: None,
) -> Swept:
    """Do the cells that are not in the folder `out` yet, and write its table and its report.

    `told` gets a line on what the sweep will take, and one for each cell that failed.

    Raises:
        RunError: the folder holds another run.
        ConfigError: images or a model that the file names cannot be opened.
    """
    started, place = time.perf_counter(), out.resolve()  # a net of the user's may go elsewhere
    forget()
    jobs = {job.key: (cell, job) for cell, job in _jobs(plan)}
    with _alone(place):
        folder, drafts = _folder(plan, place), Drafts(place)
        missing = [job for key, (_, job) in jobs.items() if not drafts.has(key)]
        failed: dict[str, str] = {}
        try:
            with progress.task(f"{len(jobs)} cells", len(jobs)) as task:
                task.advance(len(jobs) - len(missing))
                how: dict[str, Any] = {"workers": workers, "threads": plan.threads}
                made_by = partial(ENGINES[engine], address=address, **how)
                for outcome in _outcomes(made_by, missing, jobs, workers or 1, told):
                    if outcome.error:
                        failed[outcome.key] = outcome.error
                        told(f"failed: {jobs[outcome.key][0].what}: {outcome.error}")
                    else:
                        drafts.leave(outcome.key, _made(outcome, command))
                    task.advance(1)
        except BaseException:
            folder.finish("stopped")
            raise
        taken = folder.take_over(STAGE, jobs)
        failures = tuple(
            Failure(stage=STAGE, what=cell.what, reason=failed[key], command=command)
            for key, (cell, _) in jobs.items()
            if key not in taken
        )
        for failure in failures:
            folder.failed(failure)
        (place / SWEEP_TABLE).write_text(table_of(taken.values()), encoding="utf-8", newline="")
        tables = [place / SWEEP_TABLE, *_parquet(place / SWEEP_TABLE)]
        made = [folder.artefact(table, "purple sweep") for table in tables]
        folder.made_again(STAGE, "table", made)
        folder.finish("incomplete" if failures else "finished")
        render(place)
    return Swept(
        run=out,
        report=out / "report.html",
        table=out / SWEEP_TABLE,
        cells=len(jobs),
        done=len(jobs) - len(failures),
        before=len(jobs) - len(missing),
        failures=failures,
        seconds=time.perf_counter() - started,
    )


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


def _made(outcome: Outcome, command: tuple[str, ...]) -> list[Record]:
    """Return the records of an outcome; the last, which says what was called, has its seconds."""
    made = [replace(record_from_json(one), command=command) for one in outcome.records]
    return [*made[:-1], replace(made[-1], cost={"seconds": outcome.seconds})]


def _folder(plan: Plan, out: Path) -> RunFolder:
    """Return the folder of the sweep: a new one, or the one that holds a part of it."""
    asked = {"sweep": plan.asked, "threads": plan.threads, "name": plan.name}
    if not (out / "run.json").exists():
        if any(path.is_file() for path in out.rglob("*")):
            raise RunError(f"{str(out)!r} is neither a sweep nor empty; choose another --out")
        return RunFolder.create(out, asked)
    before = RunFolder.open(out).info["asked"]
    if "sweep" not in before:
        raise RunError(f"{str(out)!r} holds a run that is no sweep; choose another --out")
    folder = RunFolder.resume(out, before)
    folder.ask(asked)
    return folder


def _jobs(plan: Plan) -> Iterator[tuple[Cell, Job]]:
    """Yield each cell with its job, named by the digests of what it is about."""
    for cell in plan.cells:
        about = subject_of(cell.verb, cell.options)
        depends_on = {
            "verb": cell.verb,
            "options": cell.options,
            "data": about.dataset.digest,
            "model": about.model and about.model.digest,
        }
        yield cell, Job(key=key_of(STAGE, depends_on), verb=cell.verb, options=cell.options)


def _outcomes(
    made_by: Callable[[], Engine],
    jobs: Sequence[Job],
    known: Mapping[str, tuple[Cell, Job]],
    workers: int,
    told: Callable[[str], None],
) -> Iterator[Outcome]:
    """Yield outcomes; those of the first cell of each block come first, and tell what all take."""
    if not jobs:
        return
    engine = made_by()
    try:
        first = {known[job.key][0].block: job for job in reversed(jobs)}
        took: dict[int, float] = {}
        for outcome in engine.run(list(first.values())):
            took[known[outcome.key][0].block] = outcome.seconds
            yield outcome
        begun = {job.key for job in first.values()}
        if rest := [job for job in jobs if job.key not in begun]:
            seconds = sum(took[known[job.key][0].block] for job in rest) / workers
            told(f"{len(rest)} cells to do, about {_span(seconds)} by the first of each kind")
            yield from engine.run(rest)
    finally:
        engine.close()


def _span(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


def _parquet(table: Path) -> list[Path]:
    """Write a table as Parquet beside it; return the file, or none where pyarrow is not there."""
    try:
        from pyarrow import csv, parquet
    except ImportError:
        return []
    target = table.with_suffix(".parquet")
    parquet.write_table(csv.read_csv(table), target)
    return [target]


def table_of(cells: Iterable[Sequence[Record]]) -> str:
    """Return the measurements of cells as CSV, a line each, in the order of the cells."""
    rows = [row for records in cells for row in _rows(records)]
    axes = [key for key in AXES if any(key in row for row in rows)]
    axes += sorted({key for row in rows for key in row} - {*axes, *ENDS, "verb"})
    text = io.StringIO()
    writer = csv.DictWriter(text, ["verb", *axes, *ENDS], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


ENDS = ("metric", "class", "value", "low", "high", "n", "verdict", "record")


def _rows(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """Yield a row for each number that a cell measured."""
    for note in notes_of(records, ASKED):
        given = {key: shortly(value) for key, value in note.facts["options"].items()}
        for record in records:
            if not isinstance(record, Measurement):
                continue
            value = record.value.to_json()
            if not isinstance(value.get("value"), int | float):
                continue
            sound = record.detail.get("soundness", {})
            ends = {"metric": record.name, "class": record.how.get("class", "")}
            ends |= {"record": record.id, "verdict": sound.get("verdict", "")}
            ends |= {key: value.get(key, "") for key in ("value", "low", "high", "n")}
            yield {"verb": note.facts["verb"], **given, **ends}
