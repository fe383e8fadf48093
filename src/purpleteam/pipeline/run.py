"""A run from data to report: the stages in order, each a list of cells that are done once.

What fails is recorded with its reason; what does not need it goes on, and the report says what
is missing. Only what would end every other piece too ends the run: a stop, and a full disk.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from purpleteam.core.config import from_file
from purpleteam.core.errors import NeedsFailed, PurpleError, RunError, place_of
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.records import Failure, Note, Record
from purpleteam.core.runfolder import RunFolder
from purpleteam.models.devices import choose_device, use_threads
from purpleteam.pipeline.config import RunConfig
from purpleteam.pipeline.importing import open_dataset
from purpleteam.pipeline.stages.backdoors import hunt_backdoors, look_at_own
from purpleteam.pipeline.stages.certify import certify_partition
from purpleteam.pipeline.stages.data import describe_data
from purpleteam.pipeline.stages.defences import harden_models
from purpleteam.pipeline.stages.evasion import attack_baseline
from purpleteam.pipeline.stages.models import read_served, train_models
from purpleteam.pipeline.stages.poison import poison_models, sweep_served
from purpleteam.pipeline.stages.scan import scan_code_and_models
from purpleteam.pipeline.stages.serve import ask_app
from purpleteam.pipeline.stages.threats import judge_threats
from purpleteam.pipeline.validation import check_request
from purpleteam.pipeline.work import Piece, Stage, Work
from purpleteam.report import render

__all__ = ["STAGES", "RunResult", "prepare", "reason_of", "run", "run_stages"]

STAGES: tuple[tuple[str, tuple[Stage, ...]], ...] = (
    ("data", (describe_data,)),
    ("models", (train_models, read_served)),
    ("attacks", (attack_baseline, poison_models, sweep_served)),
    ("certify", (certify_partition,)),
    ("defences", (harden_models, look_at_own, hunt_backdoors)),
    ("scan", (scan_code_and_models,)),
    ("threats", (judge_threats,)),
    ("serve", (ask_app,)),
)
"""The flow, in parts that do not need each other but for what they ask for by name. `report`
follows: it reads the folder and nothing else."""

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


Told = Callable[[Failure, BaseException], None]


@dataclass(frozen=True)
class RunResult:
    """Where the run and its report are, and how long each stage took."""

    run: Path
    report: Path
    seconds: float
    stages: dict[str, float]
    failures: tuple[Failure, ...] = ()
    """What was asked for and is not done."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `purple run --json`."""
        stages = [{"stage": name, "seconds": round(took, 2)} for name, took in self.stages.items()]
        return {
            "run": str(self.run),
            "report": str(self.report),
            "seconds": round(self.seconds, 2),
            "stages": stages,
            "failures": [
                {"stage": one.stage, "what": one.what, "reason": one.reason, "needs": one.needs}
                for one in self.failures
            ],
        }


def run(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    command: tuple[str, ...] = (),
    progress: Progress = SILENT,
    told: Told | None = None,
) -> RunResult:
    """Run every stage into the folder `out` and write its report.

    Args:
        config: what is asked.
        out: a new folder, or with `resume` the folder of a run that asked for the same.
        resume: continue a run that was stopped; finished cells are not done again.
        command: the command line that was typed, kept with each record.
        progress: where to report.
        told: called with each piece of work that failed, and with what it raised.
    """
    started = time.perf_counter()
    work = prepare(config, out, resume=resume, progress=progress)
    work.command = command
    took: dict[str, float] = {}
    failures: list[Failure] = []

    def failed(failure: Failure, error: BaseException) -> None:
        work.run.failed(replace(failure, command=command))
        failures.append(failure)
        if told is not None:
            told(failure, error)

    try:
        run_stages(work, took, failed)
    except BaseException as error:
        with suppress(OSError):  # on a full disk run.json stays as it is: running
            work.run.finish("stopped")
        if _disk_is_full(error):
            raise RunError(
                f"no space is left for {str(out)!r}; free some, and go on with --resume"
            ) from error
        raise
    work.run.finish("incomplete" if failures else "finished")
    before = time.perf_counter()
    files = render(work.run.path)
    took["report"] = time.perf_counter() - before
    seconds = time.perf_counter() - started
    return RunResult(work.run.path, files.html, seconds, took, tuple(failures))


def prepare(
    config: RunConfig, out: Path, *, resume: bool = False, progress: Progress = SILENT
) -> Work:
    """Open the run folder and load the dataset: what comes before the first stage."""
    dataset = open_dataset(config.dataset, progress=progress)
    threads = use_threads(config.threads)
    asked = asdict(config) | {"threads": threads}
    device = choose_device(config.device)
    work = Work(RunFolder(out), config, dataset, device, threads, progress)
    check_request(work)
    work.processes = config.backdoors.processes if device.type == "cpu" else 1
    if resume and (out / "run.json").exists():
        work.run = RunFolder.resume(out, asked)
        _check_same_images(work)
    else:
        work.run = RunFolder.create(out, asked)
    return work


def _check_same_images(work: Work) -> None:
    """Refuse to go on with other images under the same name: every number would be about both."""
    for note in work.run.records():
        if isinstance(note, Note) and note.name == "dataset":
            if (before := note.facts["digest"]) != work.dataset.digest:
                raise RunError(
                    f"dataset {work.config.dataset!r} is {work.dataset.digest}, but "
                    f"{str(work.run.path)!r} is about {before}"
                )
            return


def run_stages(work: Work, took: dict[str, float], failed: Told) -> None:
    """Go through the stages.

    Args:
        work: the run.
        took: receives the seconds of each stage.
        failed: receives each piece of work that raised, with what it raised.
    """
    work.cell("data", "context", {}, _context)
    for name, parts in STAGES:
        if name not in work.config.stages:
            continue
        before = time.perf_counter()
        for part in parts:
            _do(name, Piece(part.__name__.replace("_", " "), partial(part, work)), failed)
        took[name] = time.perf_counter() - before


def _do(stage: str, piece: Piece, failed: Told) -> None:
    """Do a piece of work and the pieces that it yields; tell what raises, and go on."""
    try:
        more = piece.do()
        for one in more if isinstance(more, Iterator) else ():
            _do(stage, one, failed)
    except (Exception, SystemExit) as error:  # a net of the user's may exit
        if _disk_is_full(error):
            raise
        failed(_failure(stage, piece.what, error), error)


def _failure(stage: str, what: str, error: BaseException) -> Failure:
    needs = error.needs if isinstance(error, NeedsFailed) else ""
    return Failure(stage=stage, what=what, reason=reason_of(error), needs=needs)


def reason_of(error: BaseException) -> str:
    """Return in one line what went wrong, and where it was nobody's refusal."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, PurpleError):
        return text
    return f"{type(error).__name__}: {text} in {place_of(error)[1] or 'a library'}"


def _disk_is_full(error: BaseException | None) -> bool:
    """Say whether an error, or what it was raised from, is that nothing more can be written."""
    while error is not None:
        full = isinstance(error, OSError) and error.errno in FULL_DISK
        if full or "No space left on device" in str(error):  # as safetensors and torch pass it on
            return True
        error = error.__cause__ or error.__context__
    return False


def _context() -> list[Record]:
    """Return what stands beside our numbers: the figures of the two course reports."""
    folder = Path(str(resources.files("purpleteam"))) / "pipeline"
    return [Note(name="seeds-figures", facts=from_file(folder / "seeds_figures.toml"))]
