"""Stage threats: run every check with its negative control, then derive each threat's status."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import date
from pathlib import Path

from purpleteam.core.cards import find_stored
from purpleteam.core.checks import Target
from purpleteam.core.errors import MissingExtra
from purpleteam.core.records import CheckResult, Measurement, Note, Record
from purpleteam.data.idx import has_idx
from purpleteam.data.images import SPLITS
from purpleteam.defences.checks import MODEL_SCAN, TRAINING_SET_SCAN
from purpleteam.pipeline.stages.scan import code_paths, content_digest
from purpleteam.pipeline.state import Run
from purpleteam.threats import derive, load_system, to_facts, verdicts
from purpleteam.verbs.checks import load_checks
from purpleteam.verbs.threats import run_checks

READ_BY_CHECKS = ("robust_accuracy", "trigger_sweep_rate", MODEL_SCAN, TRAINING_SET_SCAN)
"""Measurements and notes that a check reads: when they change, the checks are run again."""
KEPT_DATA = "exports/dataset"
"""Where the images are written that have no folder: the checks read files."""


def derive_threats(run: Run) -> None:
    """Record a result for every check, the system, and the status of every threat."""
    load_checks()
    depends_on = {
        "measured": [
            one.id
            for one in run.folder.records()
            if isinstance(one, Measurement | Note) and one.name in READ_BY_CHECKS
        ],
        "code": content_digest([*code_paths(run), run.folder.path / "models"]),
    }

    def judge() -> list[Record]:
        results = _run_checks(run)
        system = load_system()
        statuses = derive(system, verdicts(results), date.today())
        note = Note(name="system-model", facts=to_facts(system, statuses))
        kept = sorted((run.folder.path / KEPT_DATA).rglob("*"))
        files = [run.folder.artefact(one, note.id) for one in kept if one.is_file()]
        return [*results, note, *statuses, *files]

    run.cell("threats", "judge", depends_on, judge)


def _run_checks(run: Run) -> list[CheckResult]:
    code = code_paths(run)
    served = run.config.models.served
    with ExitStack() as stack:
        target = Target(
            code=code[0] if code else None,
            data=_data_folder(run),
            data_digests={name: run.dataset.split(name).digest for name in SPLITS},
            model=_models_folder(run),
            url=_started(run, stack),
            served_digest=None if served is None else find_stored(served).card.digest,
            run=run.folder.path,
        )
        return run_checks(target, run.progress)


def _data_folder(run: Run) -> Path:
    """Return a folder that is read as the very images that were used: written where none is."""
    from purpleteam.data.folders import save_dataset

    named = run.dataset.origin.get("folder")
    folder = None if named is None else Path(str(named))
    if folder is not None and folder.is_dir():
        as_they_are = Path(run.config.dataset).is_dir()  # not resized by its reference
        if as_they_are or has_idx(folder):
            return folder
    return save_dataset(run.dataset, run.folder.path / KEPT_DATA)


def _models_folder(run: Run) -> Path | None:
    """Return where the run's models are, named alike wherever the run is, if it stored any."""
    folder = (run.folder.path / "models").resolve()
    return folder if any(folder.iterdir()) else None


def _started(run: Run, stack: ExitStack) -> str | None:
    if run.config.models.served is None:
        return None
    try:
        from purpleteam.serve.main import running_app

        return stack.enter_context(running_app(run.config.models.served))
    except (MissingExtra, ImportError):
        return None
