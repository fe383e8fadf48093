"""Stage threats: run every check with its negative control, then derive each threat's status."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from purpleteam.core.address import without_secrets
from purpleteam.core.cards import find_stored, zoo_names
from purpleteam.core.checks import Check, Target
from purpleteam.core.errors import MissingExtra, ModelError
from purpleteam.core.provenance import find_subject, sign_models
from purpleteam.core.records import CheckResult, Measurement, Note, Record, notes_of
from purpleteam.core.schema import MODEL, MODEL_SCAN, SYSTEM_MODEL, TRAINING_SET_SCAN
from purpleteam.core.scratch import scratch
from purpleteam.core.signing import private_key
from purpleteam.data.folders import save_dataset
from purpleteam.data.idx import has_idx
from purpleteam.data.images import SPLITS
from purpleteam.pipeline.stages.scan import code_paths, content_digest
from purpleteam.pipeline.state import Run
from purpleteam.scan.scanner import walk
from purpleteam.threats import SystemModel, derive, load_system, to_facts
from purpleteam.verbs.threats import load_checks, run_checks

READ_BY_CHECKS = (
    *("robust_accuracy", "trigger_sweep_rate", "membership_rate", "copy_agreement"),
    "epsilon_audited",
    *(MODEL_SCAN, TRAINING_SET_SCAN),
)
"""Measurements and notes that a check reads: when they change, the checks are run again."""
PACKAGE = Path(str(resources.files("purpleteam")))
KEPT_DATA = "exports/dataset"
"""Where the images are written that have no folder: the checks read files."""
PUBLIC = ("digits", "mnist", "drawn_shapes")  # datasets that anyone may see
PINNED = ("mnist",)  # those that come from mirrors, and whose digests the source code pins


@dataclass
class Inventory:
    """What of a system is there in a run, and what its checks are to look at."""

    present: set[str]  # as `threats.model.Condition` names it
    subjects: dict[str, set[str]]  # digests, as `threats.model.Subject` names them
    models: list[Path]  # a folder of stored models, or the stem of one, for each check of models
    files: list[Path]  # model files without a card: their format alone can be checked
    code: list[Path]


def check_app(run: Run) -> list[CheckResult]:
    """Record the checks of the running app, where it is part of the run."""
    served = run.config.models.served
    if served is None or not _is_served(run):
        return []
    load_checks()
    stored = find_stored(served)
    identity = stored.card.identity

    def checked() -> list[CheckResult]:
        from purpleteam.serve.guards.audit import Audit
        from purpleteam.serve.main import running_app

        with TemporaryDirectory(prefix="purple-app-", dir=scratch()) as folder:
            audit = Audit(file=Path(folder) / "audit.jsonl", checkpoint_seconds=0.1)
            with running_app(served, audit=audit) as url:
                target = Target(
                    url=url, served_digest=identity, model=stored.weights, audit=audit.file
                )
                return run_checks(lambda check: [target] * ("url" in check.needs), run.progress)

    depends_on = {"served": identity, "package": walk(PACKAGE).digest()}
    records = run.cell("threats", "check the app", depends_on, checked)
    return [record for record in records if isinstance(record, CheckResult)]


def derive_threats(run: Run) -> None:
    """Record a result for every check, the system, and the status of every threat."""
    load_checks()
    inventory, of_app = _inventory(run), check_app(run)
    depends_on: dict[str, Any] = {
        "signer": run.key and sign_models(run.folder.path, run.key),
        "measured": [
            record.id
            for record in run.folder.records()
            if isinstance(record, Measurement | Note) and record.name in READ_BY_CHECKS
        ],
        "code": content_digest([*inventory.code, run.folder.path / "models"]),
        "app": [result.id for result in of_app],
        "present": sorted(inventory.present),
        "subjects": {name: sorted(digests) for name, digests in inventory.subjects.items()},
    }

    def derived() -> list[Record]:
        with _signed_so_far(run) as signed:
            results, system = _checked(run, inventory, signed), system_of(run, inventory)
        statuses = derive(system, [*of_app, *results], date.today(), inventory.subjects)
        note = Note(name=SYSTEM_MODEL, facts=to_facts(system, statuses))
        kept = sorted((run.folder.path / KEPT_DATA).rglob("*"))
        files = [run.folder.artefact(path, note.id) for path in kept if path.is_file()]
        return [*results, note, *statuses, *files]

    run.cell("threats", "derive", depends_on, derived)


def system_of(run: Run, inventory: Inventory | None = None) -> SystemModel:
    """Return the system of a run: what is there, under the names of its model and dataset."""
    own, asked = run.config.threats.system, run.config.models
    given = None if own is None else Path(own)
    present = None if given else (inventory or _inventory(run)).present  # the user's own is whole
    name = without_secrets(asked.use or run.architecture)  # no path, no password of an address
    name = name if "://" in name else name.rsplit("/", 1)[-1]
    return load_system(given, present, model=name, dataset=run.dataset.name)


def _inventory(run: Run) -> Inventory:
    """Return what this run has: from its configuration, its records and its files."""
    asked, dataset = run.config.models, run.config.dataset.partition(":")[0]
    present, code = {"data", "run", "code"}, code_paths(run)
    models, files = list[Path](), list[Path]()
    splits = {run.dataset.split(name).digest for name in SPLITS}
    subjects = {
        "training": {run.dataset.train.digest},
        "code": {walk(path).digest() for path in code},
        "package": {walk(PACKAGE).digest()},
    }
    if dataset in PUBLIC:
        present.add("public-data")
    if dataset in PINNED:
        present.add("download")
        subjects["pinned"] = splits
    if _folder_read(run) is not None:
        subjects["data"] = splits
    parts = notes_of(run.folder.records(), MODEL)
    for roles, subject in ((("baseline", "brought"), "model"), (("hardened",), "hardened")):
        played = [note.facts for note in parts if note.facts["role"] in roles]
        subjects[subject] = {str(facts["model"]) for facts in played}
    trained = (run.folder.path / "models").resolve()  # named alike wherever the run is
    if any(trained.glob("[!.]*")):
        present.add("training")
        models.append(trained)
    if asked.use is not None and asked.use not in zoo_names():
        present.add("brought")
    served = asked.served if _is_served(run) else None
    for reference, weights in ((asked.use, asked.weights), (served, None)):
        if reference is None:
            continue
        try:
            stem = find_stored(reference).stem.resolve()
            models += [stem] if stem not in models else []
        except ModelError:  # no stored model: a bare file, a URL or code
            files += [Path(reference)] if Path(reference).is_file() else []
        files += [] if weights is None else [Path(weights)]
    deployed = subjects["model"]
    if served is not None:
        present.add("served")
        deployed = {find_stored(served).card.digest}
    subjects |= {"deployed": deployed, "files": subjects["model"] | deployed}
    if subjects["files"] or models or files or "brought" in present:
        present.add("model")
    if "brought" not in present and dataset in PUBLIC:
        present.add("public-model")
    return Inventory(present, subjects, models, files, code)


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
    return (card.shape, len(card.classes)) == (run.subject().shape, len(run.dataset.classes))


@contextmanager
def _signed_so_far(run: Run) -> Iterator[Target]:
    """Yield the public key, and a signature of the run as it is, which its end replaces."""
    if run.key is None:
        yield Target()
        return
    signer = private_key(run.key)
    with TemporaryDirectory(prefix="purple-signed-", dir=scratch()) as folder:
        public, signature = Path(folder) / "signer.pub", Path(folder) / "run.sig"
        public.write_text(signer.public_key.unrecognized_fields["pem"], "utf-8")
        public.chmod(0o600)
        signature.write_bytes(find_subject(run.folder.path).signed_by(signer))
        yield Target(signer=public, signature=signature)


def _checked(run: Run, inventory: Inventory, signed: Target) -> list[CheckResult]:
    """Run each check but the app's on all of its kind; what is not there is skipped, once."""
    data = _folder_read(run) or save_dataset(run.dataset, run.folder.path / KEPT_DATA)
    digests = {name: run.dataset.split(name).digest for name in SPLITS}
    packages = tuple(sys.path)
    target = replace(
        signed, data=data, data_digests=digests, run=run.folder.path, packages=packages
    )

    def targets(check: type[Check]) -> list[Target]:
        if "url" in check.needs or ("signer" in check.needs and signed.signer is None):
            return []
        if "model" in check.needs:
            of = inventory.models + (inventory.files if check.id == "model.format" else [])
            return [replace(target, model=path) for path in of] or [target]
        if "code" in check.needs:
            return [replace(target, code=path) for path in inventory.code]
        return [target]

    return run_checks(targets, run.progress)


def _folder_read(run: Run) -> Path | None:
    """Return the folder that the images were read from, where it is read as those very images."""
    folder = Path(str(run.dataset.origin.get("folder", "")))
    as_they_are = Path(run.config.dataset).is_dir()  # not resized by its reference
    given = "folder" in run.dataset.origin and folder.is_dir()
    return folder if given and (as_they_are or has_idx(folder)) else None
