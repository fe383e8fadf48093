"""A run from data to report: the stages in order, each a list of cells that are done once.

What fails is recorded and what does not need it goes on; a stop and a full disk end the run.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from purpleteam.core.errors import NeedsFailed, RunError, disk_is_full, failure_of
from purpleteam.core.plugins import module_of
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.provenance import check_key, sign_run
from purpleteam.core.records import (
    Artefact,
    CheckResult,
    Failure,
    Finding,
    Measurement,
    Note,
    notes_of,
)
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.schema import DATASET
from purpleteam.core.signing import SIGNATURE, Statement
from purpleteam.models.devices import choose_device, use_threads
from purpleteam.pipeline.ahead import work_ahead
from purpleteam.pipeline.config import RunConfig
from purpleteam.pipeline.engines import ENGINES, Engine, refuse_cluster
from purpleteam.pipeline.stages.certify import certify_baseline, certify_partition, check_bounds
from purpleteam.pipeline.stages.data import describe_data
from purpleteam.pipeline.stages.defences import harden_models
from purpleteam.pipeline.stages.evasion import attack_baseline
from purpleteam.pipeline.stages.lab import look_at_own, run_trials
from purpleteam.pipeline.stages.models import read_served, train_models
from purpleteam.pipeline.stages.poison import poison_models, sweep_served
from purpleteam.pipeline.stages.privacy import measure_privacy
from purpleteam.pipeline.stages.scan import scan_code_and_models
from purpleteam.pipeline.stages.serve import ask_app
from purpleteam.pipeline.stages.threats import check_app, derive_threats
from purpleteam.pipeline.state import Piece, Run, Stage
from purpleteam.pipeline.validation import check_request
from purpleteam.report import render
from purpleteam.verbs._subject import open_dataset

STAGES: dict[str, list[Stage]] = {
    "data": [describe_data],
    "models": [train_models, read_served],
    "attacks": [attack_baseline, poison_models, sweep_served],
    "certify": [certify_partition, certify_baseline],
    "defences": [harden_models, look_at_own, run_trials],
    "privacy": [measure_privacy],
    "scan": [scan_code_and_models],
    "threats": [check_app, derive_threats],
    "serve": [ask_app],
}
"""The flow, in parts that do not need each other but for what they ask for by name; a plug-in
adds its own. `report` follows: it reads the folder and nothing else."""

TOLD_OF = (
    *("dataset", "published-figures", "scan", "served"),
    *("model", "model-scan", "training-set-scan", "no-repair"),
)
"""Notes that tell something without the files of the run."""
Told = Callable[[Failure, BaseException], None]


@dataclass(frozen=True)
class RunResult:
    """Where the run and its report are, and how long each stage took."""

    run: Path
    report: Path
    seconds: float
    stages: dict[str, float]
    failures: tuple[Failure, ...] = ()  # what was asked for and is not done
    signed: Statement | None = None  # by whom; a run that is not whole is not signed

    def to_json(self) -> dict[str, Any]:
        stages = [{"stage": name, "seconds": round(took, 2)} for name, took in self.stages.items()]
        told = ("stage", "what", "reason", "needs")
        return {
            "run": str(self.run),
            "report": str(self.report),
            "seconds": round(self.seconds, 2),
            "stages": stages,
            "failures": [{key: getattr(failure, key) for key in told} for failure in self.failures],
            "signed": self.signed and asdict(self.signed),
        }


def run(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    key: Path | None = None,
    engine: str = "inline",
    workers: int | None = None,
    address: str | None = None,
    gpus: float = 0.0,
    command: tuple[str, ...] = (),
    progress: Progress = SILENT,
    told: Told | None = None,
    ended: Callable[[str, float], None] | None = None,
) -> RunResult:
    """Run every stage into the folder `out`, finished cells not again, and write its report.

    `key` signs the models as they are checked, and the whole run when it has ended; `command` is
    kept with each record; `told` is called with each piece of work that failed and its
    error, `ended` with each stage and its seconds. `engine` does cells ahead, with as many
    `workers` (by default the request's `processes`), on the cluster at `address` with as many
    `gpus` a cell.
    """
    started = time.perf_counter()
    check_key(key, out)
    state = _checked(config, out, progress)
    helpers = _engine(state, engine, workers, address, gpus)
    try:
        _open(state, resume)
    except BaseException:
        if helpers:
            helpers.close()
        raise
    state.key = key
    (out / f"run{SIGNATURE}").unlink(missing_ok=True)  # of what is changed now
    state.command = command
    took: dict[str, float] = {}
    failures: list[Failure] = []

    def failed(failure: Failure, error: BaseException) -> None:
        state.folder.failed(replace(failure, command=command))
        failures.append(failure)
        if told is not None:
            told(failure, error)

    with state.folder.stoppable("free some, and go on with --resume"):
        if helpers:
            work_ahead(state, helpers)
            took["side by side"] = time.perf_counter() - started
        for name in STAGES:
            before = time.perf_counter()
            do_stage(state, name, failed)
            if name in config.stages:
                took[name] = time.perf_counter() - before
                if ended is not None:
                    ended(name, took[name])
        try:
            check_bounds(state.folder)
        except RunError as error:
            what = "hold certificates against attacks"
            failed(Failure(stage="certify", what=what, reason=failure_of(error)), error)
    state.folder.finish("incomplete" if failures else "finished")
    before = time.perf_counter()
    files = render(state.folder.path)
    now = time.perf_counter()
    took["report"] = now - before
    signed = None if key is None or failures else sign_run(state.folder.path, key)
    return RunResult(state.folder.path, files.html, now - started, took, tuple(failures), signed)


def prepare(
    config: RunConfig, out: Path, *, resume: bool = False, progress: Progress = SILENT
) -> Run:
    """Open the run folder and load the dataset: what comes before the first stage."""
    run = _checked(config, out, progress)
    _open(run, resume)
    return run


def _checked(config: RunConfig, out: Path, progress: Progress) -> Run:
    """Load the dataset, and refuse what cannot be done, before anything is written."""
    dataset, threads = open_dataset(config.dataset, progress=progress), use_threads(config.threads)
    run = Run(RunFolder(out), config, dataset, choose_device(config.device), threads, progress)
    check_request(run)
    return run


def _engine(
    run: Run, name: str, workers: int | None, address: str | None, gpus: float
) -> Engine | None:
    """Return who does cells ahead, if anybody; by default as many processes as are asked for."""
    if name == "inline" and workers is None:  # on a GPU several would be in each other's way
        workers = run.config.processes if run.device.type == "cpu" else 1
    made_by = ENGINES[name]
    if name == "inline" and workers == 1:
        refuse_cluster(name, address, gpus)
        return None
    return made_by(workers=workers, threads=run.threads, address=address, gpus=gpus)


def _open(run: Run, resume: bool) -> None:
    """Begin the run's folder, or go on with it."""
    out, asked = run.folder.path, asdict(run.config) | {"threads": run.threads}
    if not (resume and (out / "run.json").exists()):
        run.folder = RunFolder.create(out, asked)
        return
    run.folder = RunFolder.resume(out, asked)
    for half in (out / "models").glob(".tmp*"):  # written as the run was killed
        half.unlink()
    for note in notes_of(run.folder.records(), DATASET):
        if (other := note.facts["digest"]) != run.dataset.digest:  # numbers would be about both
            what = f"dataset {run.config.dataset!r} is {run.dataset.digest}"
            raise RunError(f"{what}, but {str(out)!r} is about {other}")


def do_stage(run: Run, stage: str, failed: Told) -> None:
    """Do the parts of a stage; `failed` receives each piece that raised, with what it raised."""

    def do(piece: Piece) -> None:
        try:
            for inner in piece.inner():
                do(inner)
        except (Exception, SystemExit) as error:  # a net of the user's may exit
            if disk_is_full(error):
                raise
            needs = error.needs if isinstance(error, NeedsFailed) else ""
            reason = failure_of(error)
            failed(Failure(stage=stage, what=piece.what, reason=reason, needs=needs), error)

    for piece in parts_of(run, stage):
        do(piece)


def parts_of(run: Run, stage: str) -> list[Piece]:
    """Return the parts of a stage as pieces, where the run asks for it."""
    rooms = (__package__, *map(module_of, run.config.plugins))
    return [
        Piece(part.__name__.replace("_", " "), partial(part, run))
        for part in STAGES[stage]
        if stage in run.config.stages
        and any(f"{part.__module__}.".startswith(f"{room}.") for room in rooms)
    ]


def write_results(run: Path, path: Path) -> None:
    """Write run.json and the records of a finished run, without its files, as one JSON file."""
    folder = RunFolder.open(run)
    info = {key: value for key, value in folder.info.items() if key != "actor"}
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"run": info, "records": kept_records(folder)}
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def kept_records(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the records of a run that tell something without its files."""
    return [
        record.to_json()
        for record in folder.records()
        if isinstance(record, Measurement | CheckResult | Finding)
        or (isinstance(record, Note) and record.name in TOLD_OF)
        or (isinstance(record, Artefact) and record.path.endswith(".safetensors"))
    ]
