"""Stage threats: run every check with its negative control, then derive each threat's status."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import date
from pathlib import Path

from purpleteam.core.cards import find_stored
from purpleteam.core.checks import CHECKS, Target, run_check
from purpleteam.core.errors import MissingExtra
from purpleteam.core.records import CheckResult, Measurement, Note, Record
from purpleteam.data.idx import has_idx
from purpleteam.data.images import SPLITS
from purpleteam.defences.checks import MODEL_SCAN, TRAINING_SET_SCAN
from purpleteam.pipeline.checks import load_checks
from purpleteam.pipeline.stages.scan import code_path, content_digest
from purpleteam.pipeline.work import Work
from purpleteam.threats import derive, load_system, to_facts, verdicts

__all__ = ["judge_threats"]

READ_BY_CHECKS = ("robust_accuracy", "trigger_sweep_rate", MODEL_SCAN, TRAINING_SET_SCAN)
"""Measurements and notes that a check reads: when they change, the checks are run again."""
KEPT_DATA = "exports/dataset"
"""Where the images are written that have no folder: the checks read files."""


def judge_threats(work: Work) -> None:
    """Record a result for every check, the system, and the status of every threat."""
    load_checks()
    depends_on = {
        "measured": [
            one.id
            for one in work.run.records()
            if isinstance(one, Measurement | Note) and one.name in READ_BY_CHECKS
        ],
        "code": content_digest([code_path(work), work.run.path / "models"]),
    }

    def judge() -> list[Record]:
        results = _run_checks(work)
        system = load_system()
        statuses = derive(system, verdicts(results), date.today())
        note = Note(name="system-model", facts=to_facts(system, statuses))
        kept = sorted((work.run.path / KEPT_DATA).rglob("*"))
        files = [work.run.artefact(one, note.id) for one in kept if one.is_file()]
        return [*results, note, *statuses, *files]

    work.cell("threats", "judge", depends_on, judge)


def _run_checks(work: Work) -> list[CheckResult]:
    with ExitStack() as stack, work.progress.task("checks", len(CHECKS)) as task:
        target = Target(
            code=code_path(work),
            data=_data_folder(work),
            data_digests={name: work.dataset.split(name).digest for name in SPLITS},
            model=_models_folder(work),
            url=_started(work, stack),
            served_digest=find_stored(work.config.models.served).card.digest,
            run=work.run.path,
        )
        results = []
        for name in CHECKS:
            results.append(run_check(CHECKS[name](), target))
            task.advance(1)
        return results


def _data_folder(work: Work) -> Path:
    """Return a folder that is read as the very images that were used: written where none is."""
    from purpleteam.data.folders import save_dataset

    named = work.dataset.origin.get("folder")
    folder = None if named is None else Path(str(named))
    if folder is not None and folder.is_dir():
        as_they_are = Path(work.config.dataset).is_dir()  # not resized by its reference
        if as_they_are or has_idx(folder):
            return folder
    return save_dataset(work.dataset, work.run.path / KEPT_DATA)


def _models_folder(work: Work) -> Path | None:
    """Return where the run's models are, named alike wherever the run is, if it stored any."""
    folder = (work.run.path / "models").resolve()
    return folder if any(folder.iterdir()) else None


def _started(work: Work, stack: ExitStack) -> str | None:
    try:
        from purpleteam.serve.main import running_app

        return stack.enter_context(running_app(work.config.models.served))
    except (MissingExtra, ImportError):
        return None
