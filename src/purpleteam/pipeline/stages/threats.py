"""Stage threats: run every check with its negative control, then derive each threat's status.

The system is that of the run: the inventory says what is there, what the checks are to look at,
and which digests each subject of a check has.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import date
from importlib import resources
from pathlib import Path

from purpleteam.core.cards import find_stored, zoo_names
from purpleteam.core.checks import CHECKS, Target, run_check
from purpleteam.core.errors import MissingExtra, ModelError
from purpleteam.core.records import CheckResult, Measurement, Note, Record
from purpleteam.data.idx import has_idx
from purpleteam.data.images import SPLITS
from purpleteam.defences.checks import MODEL_SCAN, TRAINING_SET_SCAN
from purpleteam.models.address import without_secrets
from purpleteam.pipeline.checks import load_checks
from purpleteam.pipeline.stages.scan import code_path, content_digest
from purpleteam.pipeline.work import Work
from purpleteam.scan.tree import walk
from purpleteam.threats import derive, load_system, to_facts
from purpleteam.threats.seeds import with_origins, with_tables

__all__ = ["judge_threats"]

READ_BY_CHECKS = ("robust_accuracy", "trigger_sweep_rate", MODEL_SCAN, TRAINING_SET_SCAN)
"""Measurements and notes that a check reads: when they change, the checks are run again."""
KEPT_DATA = "exports/dataset"
"""Where the images are written that have no folder: the checks read files."""
PUBLIC = ("digits", "mnist")
"""Datasets that anyone may see."""
PINNED = ("mnist",)
"""Those that come from mirrors, and whose digests the source code pins."""


@dataclass
class Inventory:
    """What of a system is there in a run, and what its checks are to look at."""

    present: set[str]
    """As `threats.model.Condition` names it."""
    subjects: dict[str, set[str]]
    """Digests, as `threats.model.Subject` names them."""
    models: list[Path] = field(default_factory=list)
    """A folder of stored models, or the stem of one, for each check of models."""
    files: list[Path] = field(default_factory=list)
    """Model files without a card: their format alone can be checked."""
    code: list[Path] = field(default_factory=list)


def judge_threats(work: Work) -> None:
    """Record a result for every check, the system, and the status of every threat."""
    load_checks()
    inventory = _inventory(work)
    depends_on = {
        "measured": [
            one.id
            for one in work.run.records()
            if isinstance(one, Measurement | Note) and one.name in READ_BY_CHECKS
        ],
        "code": content_digest([*inventory.code, work.run.path / "models"]),
        "present": sorted(inventory.present),
        "subjects": {name: sorted(digests) for name, digests in inventory.subjects.items()},
    }

    def judge() -> list[Record]:
        results = _run_checks(work, inventory)
        named = {"model": _name(work), "dataset": work.dataset.name}
        system = load_system(None, inventory.present, **named)
        statuses = derive(system, results, date.today(), inventory.subjects)
        facts = to_facts(system, statuses)
        if {"public-data", "training", "served"} <= inventory.present:
            statuses = with_origins(statuses)
            facts = with_tables(facts, system, statuses)
        note = Note(name="system-model", facts=facts)
        kept = sorted((work.run.path / KEPT_DATA).rglob("*"))
        files = [work.run.artefact(one, note.id) for one in kept if one.is_file()]
        return [*results, note, *statuses, *files]

    work.cell("threats", "judge", depends_on, judge)


def _inventory(work: Work) -> Inventory:
    """Return what this run has: from its configuration, its records and its files."""
    asked, dataset = work.config.models, work.config.dataset
    code = [Path(path) for path in work.config.scan.paths] or [code_path(work)]
    inventory = Inventory(
        {"data", "run", "code"}, {"training": {work.dataset.train.digest}}, code=code
    )
    inventory.subjects["code"] = {walk(path).digest() for path in code}
    inventory.subjects["package"] = {walk(Path(str(resources.files("purpleteam")))).digest()}
    splits = {work.dataset.split(name).digest for name in SPLITS}
    if dataset in PUBLIC:
        inventory.present.add("public-data")
    if dataset in PINNED:
        inventory.present.add("download")
        inventory.subjects["pinned"] = splits
    if _folder_read(work) is not None:
        inventory.subjects["data"] = splits

    measured = [one for one in work.run.records() if isinstance(one, Measurement)]
    for name, subject in (("baseline", "model"), ("hardened", "hardened")):
        found = [one.subject for one in measured if one.subject.get("model_name") == name]
        inventory.subjects[subject] = {str(one["model"]) for one in found if "model" in one}
    trained = (work.run.path / "models").resolve()  # named alike wherever the run is
    if any(trained.glob("[!.]*")):
        inventory.present.add("training")
        inventory.models.append(trained)
    if asked.use is not None:
        if asked.use not in zoo_names():
            inventory.present.add("brought")
        _add_model(inventory, asked.use)
        if asked.weights is not None:
            inventory.files.append(Path(asked.weights))
    in_use = set(inventory.subjects["model"])
    if _is_served(work):
        card = find_stored(asked.served).card
        inventory.present.add("served")
        _add_model(inventory, asked.served)
        inventory.subjects["deployed"] = {card.digest}
        in_use.add(card.digest)
    inventory.subjects.setdefault("deployed", inventory.subjects["model"])
    inventory.subjects["files"] = in_use
    if in_use or inventory.models or inventory.files or "brought" in inventory.present:
        inventory.present.add("model")
    if "brought" not in inventory.present and dataset in PUBLIC:
        inventory.present.add("public-model")
    return inventory


def _add_model(inventory: Inventory, reference: str) -> None:
    """Add the files that a reference means, where it means some."""
    try:
        stem = find_stored(reference).stem.resolve()
    except ModelError:  # no stored model: a bare file, a URL or code
        if Path(reference).is_file():
            inventory.files.append(Path(reference))
        return
    if stem not in inventory.models:
        inventory.models.append(stem)


def _is_served(work: Work) -> bool:
    """Say whether the app is part of this run: it was asked for, can run, and reads the images."""
    if "serve" not in work.config.stages:
        return False
    try:
        import purpleteam.serve.main  # noqa: F401
    except (MissingExtra, ImportError):
        return False
    card = find_stored(work.config.models.served).card
    return (card.shape, len(card.classes)) == (work.shape, len(work.dataset.classes))


def _name(work: Work) -> str:
    """Return what texts call the model: no path, and no password of an address."""
    reference = without_secrets(work.config.models.use or work.architecture)
    return reference if "://" in reference else reference.rsplit("/", 1)[-1]


def _run_checks(work: Work, inventory: Inventory) -> list[CheckResult]:
    """Run each check on everything of its kind; what is not there is skipped, once.

    Where no app is part of the run its checks are no part of it either.
    """
    with ExitStack() as stack, work.progress.task("checks", len(CHECKS)) as task:
        target = Target(
            data=_folder_read(work) or _folder_written(work),
            data_digests={name: work.dataset.split(name).digest for name in SPLITS},
            url=_started(work, stack) if "served" in inventory.present else None,
            served_digest=find_stored(work.config.models.served).card.digest,
            run=work.run.path,
        )
        results = []
        for name in CHECKS:
            needs = CHECKS[name].needs
            targets = [target]
            if "url" in needs and "served" not in inventory.present:
                targets = []
            elif "model" in needs:
                of = inventory.models + (inventory.files if name == "model.format" else [])
                targets = [replace(target, model=path) for path in of] or targets
            elif "code" in needs:
                targets = [replace(target, code=path) for path in inventory.code]
            results += [run_check(CHECKS[name](), one) for one in targets]
            task.advance(1)
        return results


def _folder_read(work: Work) -> Path | None:
    """Return the folder that the images were read from, where it is read as those very images."""
    named = work.dataset.origin.get("folder")
    folder = None if named is None else Path(str(named))
    if folder is not None and folder.is_dir():
        as_they_are = Path(work.config.dataset).is_dir()  # not resized by its reference
        if as_they_are or has_idx(folder):
            return folder
    return None


def _folder_written(work: Work) -> Path:
    """Write the images that have no such folder, for the checks of how they fit together."""
    from purpleteam.data.folders import save_dataset

    return save_dataset(work.dataset, work.run.path / KEPT_DATA)


def _started(work: Work, stack: ExitStack) -> str | None:
    try:
        from purpleteam.serve.main import running_app

        return stack.enter_context(running_app(work.config.models.served))
    except (MissingExtra, ImportError):
        return None
