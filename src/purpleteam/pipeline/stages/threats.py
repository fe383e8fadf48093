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

from purpleteam.core.address import without_secrets
from purpleteam.core.cards import find_stored, zoo_names
from purpleteam.core.checks import CHECKS, Target, run_check
from purpleteam.core.errors import MissingExtra, ModelError
from purpleteam.core.records import CheckResult, Measurement, Note, Record
from purpleteam.core.schema import MODEL, MODEL_SCAN, TRAINING_SET_SCAN
from purpleteam.data.idx import has_idx
from purpleteam.data.images import SPLITS
from purpleteam.pipeline.stages.scan import code_paths, content_digest
from purpleteam.pipeline.state import Run
from purpleteam.scan.scanner import walk
from purpleteam.threats import SystemModel, derive, load_system, to_facts
from purpleteam.verbs.checks import load_checks

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


def derive_threats(run: Run) -> None:
    """Record a result for every check, the system, and the status of every threat."""
    load_checks()
    inventory = _inventory(run)
    depends_on = {
        "measured": [
            one.id
            for one in run.folder.records()
            if isinstance(one, Measurement | Note) and one.name in READ_BY_CHECKS
        ],
        "code": content_digest([*inventory.code, run.folder.path / "models"]),
        "present": sorted(inventory.present),
        "subjects": {name: sorted(digests) for name, digests in inventory.subjects.items()},
    }

    def derived() -> list[Record]:
        results = _run_checks(run, inventory)
        system = _system(run, inventory)
        statuses = derive(system, results, date.today(), inventory.subjects)
        facts = to_facts(system, statuses)
        note = Note(name="system-model", facts=facts)
        kept = sorted((run.folder.path / KEPT_DATA).rglob("*"))
        files = [run.folder.artefact(one, note.id) for one in kept if one.is_file()]
        return [*results, note, *statuses, *files]

    run.cell("threats", "derive", depends_on, derived)


def system_of(run: Run) -> SystemModel:
    """Return the system of a run: what is there, under the names of its model and dataset."""
    return _system(run, _inventory(run))


def _system(run: Run, inventory: Inventory) -> SystemModel:
    given = None if run.config.threats.system is None else Path(run.config.threats.system)
    present = inventory.present if given is None else None  # a system of the user's own is whole
    return load_system(given, present, model=_name(run), dataset=run.dataset.name)


def _inventory(run: Run) -> Inventory:
    """Return what this run has: from its configuration, its records and its files."""
    asked, dataset = run.config.models, run.config.dataset
    code = code_paths(run)
    inventory = Inventory(
        {"data", "run", "code"}, {"training": {run.dataset.train.digest}}, code=code
    )
    inventory.subjects["code"] = {walk(path).digest() for path in code}
    inventory.subjects["package"] = {walk(Path(str(resources.files("purpleteam")))).digest()}
    splits = {run.dataset.split(name).digest for name in SPLITS}
    if dataset in PUBLIC:
        inventory.present.add("public-data")
    if dataset in PINNED:
        inventory.present.add("download")
        inventory.subjects["pinned"] = splits
    if _folder_read(run) is not None:
        inventory.subjects["data"] = splits

    parts = [note for note in run.folder.records() if isinstance(note, Note) and note.name == MODEL]
    for roles, subject in ((("baseline", "brought"), "model"), (("hardened",), "hardened")):
        played = [note.facts for note in parts if note.facts["role"] in roles]
        inventory.subjects[subject] = {str(facts["model"]) for facts in played}
    trained = (run.folder.path / "models").resolve()  # named alike wherever the run is
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
    if asked.served is not None and _is_served(run):
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


def _is_served(run: Run) -> bool:
    """Say whether the app is part of this run: it was asked for, can run, and reads the images."""
    served = run.config.models.served
    if served is None or "serve" not in run.config.stages:
        return False
    try:
        import purpleteam.serve.main  # noqa: F401
    except (MissingExtra, ImportError):
        return False
    card = find_stored(served).card
    height, width, channels = run.dataset.shape
    return (card.shape, len(card.classes)) == ((channels, height, width), len(run.dataset.classes))


def _name(run: Run) -> str:
    """Return what texts call the model: no path, and no password of an address."""
    reference = without_secrets(run.config.models.use or run.architecture)
    return reference if "://" in reference else reference.rsplit("/", 1)[-1]


def _run_checks(run: Run, inventory: Inventory) -> list[CheckResult]:
    """Run each check on everything of its kind; what is not there is skipped, once.

    Where no app is part of the run its checks are no part of it either.
    """
    with ExitStack() as stack, run.progress.task("checks", len(CHECKS)) as task:
        target = Target(
            data=_folder_read(run) or _folder_written(run),
            data_digests={name: run.dataset.split(name).digest for name in SPLITS},
            url=_started(run, stack) if "served" in inventory.present else None,
            served_digest=next(iter(inventory.subjects["deployed"]), None),
            run=run.folder.path,
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


def _folder_read(run: Run) -> Path | None:
    """Return the folder that the images were read from, where it is read as those very images."""
    named = run.dataset.origin.get("folder")
    folder = None if named is None else Path(str(named))
    if folder is not None and folder.is_dir():
        as_they_are = Path(run.config.dataset).is_dir()  # not resized by its reference
        if as_they_are or has_idx(folder):
            return folder
    return None


def _folder_written(run: Run) -> Path:
    """Write the images that have no such folder, for the checks of how they fit together."""
    from purpleteam.data.folders import save_dataset

    return save_dataset(run.dataset, run.folder.path / KEPT_DATA)


def _started(run: Run, stack: ExitStack) -> str | None:
    if run.config.models.served is None:
        return None
    try:
        from purpleteam.serve.main import running_app

        return stack.enter_context(running_app(run.config.models.served))
    except (MissingExtra, ImportError):
        return None
