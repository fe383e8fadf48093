"""A run from data to report: the stages in order, each a list of cells that are done once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from purpleteam.core.config import from_file
from purpleteam.core.errors import RunError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.records import Note, Record
from purpleteam.core.runfolder import RunFolder
from purpleteam.models.devices import choose_device, use_threads
from purpleteam.pipeline.config import RunConfig
from purpleteam.pipeline.importing import open_dataset
from purpleteam.pipeline.stages.backdoors import hunt_backdoors, look_at_own
from purpleteam.pipeline.stages.certify import certify_partition
from purpleteam.pipeline.stages.data import describe_data
from purpleteam.pipeline.stages.defences import harden_models
from purpleteam.pipeline.stages.evasion import attack_baseline
from purpleteam.pipeline.stages.models import train_models
from purpleteam.pipeline.stages.poison import poison_models, sweep_served
from purpleteam.pipeline.stages.scan import scan_code_and_models
from purpleteam.pipeline.stages.serve import ask_app
from purpleteam.pipeline.stages.threats import judge_threats
from purpleteam.pipeline.validation import check_request
from purpleteam.pipeline.work import Work
from purpleteam.report import render

__all__ = ["STAGES", "RunResult", "prepare", "run", "run_stages"]

Stage = Callable[[Work], None]

STAGES: tuple[tuple[str, tuple[Stage, ...]], ...] = (
    ("data", (describe_data,)),
    ("models", (train_models,)),
    ("attacks", (attack_baseline, poison_models, sweep_served)),
    ("certify", (certify_partition,)),
    ("defences", (harden_models, look_at_own, hunt_backdoors)),
    ("scan", (scan_code_and_models,)),
    ("threats", (judge_threats,)),
    ("serve", (ask_app,)),
)
"""The flow. `report` follows: it reads the folder and nothing else."""


@dataclass(frozen=True)
class RunResult:
    """Where the run and its report are, and how long each stage took."""

    run: Path
    report: Path
    seconds: float
    stages: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `purple run --json`."""
        stages = [{"stage": name, "seconds": round(took, 2)} for name, took in self.stages.items()]
        return {
            "run": str(self.run),
            "report": str(self.report),
            "seconds": round(self.seconds, 2),
            "stages": stages,
        }


def run(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    command: tuple[str, ...] = (),
    progress: Progress = SILENT,
) -> RunResult:
    """Run every stage into the folder `out` and write its report.

    Args:
        config: what is asked.
        out: a new folder, or with `resume` the folder of a run that asked for the same.
        resume: continue a run that was stopped; finished cells are not done again.
        command: the command line that was typed, kept with each record.
        progress: where to report.
    """
    started = time.perf_counter()
    work = prepare(config, out, resume=resume, progress=progress)
    work.command = command
    took: dict[str, float] = {}
    try:
        run_stages(work, took)
    except BaseException:
        work.run.finish("stopped")
        raise
    work.run.finish("finished")
    before = time.perf_counter()
    files = render(work.run.path)
    took["report"] = time.perf_counter() - before
    return RunResult(work.run.path, files.html, time.perf_counter() - started, took)


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


def run_stages(work: Work, took: dict[str, float]) -> None:
    """Go through the stages; `took` receives the seconds of each."""
    work.cell("data", "context", {}, _context)
    for name, steps in STAGES:
        if name not in work.config.stages:
            continue
        before = time.perf_counter()
        for step in steps:
            step(work)
        took[name] = time.perf_counter() - before


def _context() -> list[Record]:
    """Return what stands beside our numbers: the seeds' figures, and what was not tested."""
    folder = Path(str(resources.files("purpleteam"))) / "pipeline"
    return [
        Note(name="seeds-figures", facts=from_file(folder / "seeds_figures.toml")),
        Note(name="not-tested", facts=from_file(folder / "not_tested.toml")),
    ]
