"""ls, doctor, data: what there is and what this machine has, found without heavy imports."""

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module, metadata, util
from pathlib import Path
from typing import Annotated, Any

from purpleteam.cli.build import Answer
from purpleteam.cli.runs import Out
from purpleteam.core.errors import PurpleError, RunError, UsageError, unknown
from purpleteam.core.progress import Progress
from purpleteam.verbs.outputs import folder_to_write
from purpleteam.verbs.result import table
from purpleteam.verbs.verb import Option

EXTRAS = {
    "torch": "lab",
    "sklearn": "lab",
    "onnx": "lab",
    "onnxruntime": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
    "bandit": "base",
}
PARTS = {
    "architectures": ("models", "ARCHITECTURES"),
    "recipes": ("models", "RECIPES"),
    "attacks": ("attacks.evasion", "ATTACKS"),
    "poisons": ("attacks.poison", "POISONS"),
    "defences": ("defences", "DEFENCES"),
    "training_set_detectors": ("defences.detection.training_set", "TRAINING_SET_DETECTORS"),
    "model_detectors": ("defences.detection.model", "MODEL_DETECTORS"),
    "repairs": ("defences.repair", "REPAIRS"),
}


def list_all() -> Answer:
    """What there is: zoo models, runs, profiles, and parts by name."""
    from purpleteam.core.cards import zoo_names
    from purpleteam.core.verification import verify_records
    from purpleteam.data import DATASETS
    from purpleteam.pipeline.config import profiles

    runs = sorted(str(path.parent) for path in Path("runs").glob("*/run.json"))
    states: dict[str, dict[str, str]] = {}
    for run in runs:
        try:
            verification = verify_records(Path(run))
        except RunError as error:
            state = {"verdict": "unknown", "status": "unknown", "message": str(error)}
        else:
            wrong = (
                verification.of(verification.verdict)[0].message
                if verification.verdict != "pass"
                else ""
            )
            told = {"pass": "records whole", "fail": f"NOT WHOLE: {wrong}", "unknown": wrong}
            message = f"{verification.status}, {told[verification.verdict]}"
            state = {
                "verdict": verification.verdict,
                "status": verification.status,
                "message": message,
            }
        states[run] = state
    values: dict[str, Any] = {
        "models": zoo_names(),
        "datasets": list(DATASETS),
        "profiles": list(profiles()),
        "runs": runs,
        "verification": states,
    }
    try:
        for key, (room, name) in PARTS.items():
            values[key] = list(getattr(import_module(f"purpleteam.{room}"), name))
    except ModuleNotFoundError:
        values["parts"] = "pip install 'purpleteam[lab]' for attacks, defences and training"
    rows = [
        (key, ", ".join(value) if isinstance(value, list) else value)
        for key, value in values.items()
        if key not in ("runs", "verification")
    ]
    rows += [("run", f"{run}: {state['message']}") for run, state in states.items()]
    return Answer(values=values, shown=table(rows))


def doctor() -> Answer:
    """What is installed, what is missing, and how to get it."""
    from purpleteam.data.sources.mnist import find_mnist

    parts = [("python", True, platform.python_version()), ("cores", True, str(os.cpu_count()))]
    for name, extra in EXTRAS.items():
        try:
            present = util.find_spec(name) is not None
        except ImportError:
            present = False
        distribution = "scikit-learn" if name == "sklearn" else name
        how = metadata.version(distribution) if present else f"pip install 'purpleteam[{extra}]'"
        parts.append((name, present, how))
    try:
        version = metadata.version("torch")
        names = (str(package.metadata["Name"]) for package in metadata.distributions())
        cuda = any(name.lower().startswith("nvidia-") for name in names)
        parts.append(("torch build", True, f"{version}, {'CUDA' if cuda else 'CPU'}"))
    except metadata.PackageNotFoundError:
        told = "pip install 'purpleteam[lab]'; see the README for CPU"
        parts.append(("torch build", False, told))
    try:
        folder = find_mnist()
        told = str(folder or "purple data fetch mnist, or point PURPLETEAM_DATA at it")
    except PurpleError as error:
        folder, told = None, str(error)
    parts.append(("MNIST", folder is not None, told))
    checks = [{"what": name, "ok": ok, "detail": detail} for name, ok, detail in parts]
    rows = [("ok" if ok else "missing", name, detail) for name, ok, detail in parts]
    return Answer(values={"checks": checks}, shown=table(rows))


def fetch(
    name: Annotated[str, Option(name="mnist", help="")], out: Out = None, *, progress: Progress
) -> Answer:
    """Download MNIST from public mirrors; every file's content is checked against its digest."""
    from purpleteam.data.sources.mnist import fetch_mnist, mnist_cache

    if name != "mnist":
        raise UsageError(unknown("dataset to fetch", name, ["mnist"]))
    folder = folder_to_write(out or mnist_cache())
    fetch_mnist(folder, progress=progress)
    return Answer(values={"folder": str(folder)}, shown=[str(folder)])


def verify_data(folder: Annotated[Path, Option(name="DIR", kind=Path, help="")]) -> Answer:
    """Say what is in a folder, and whether it is whole; MNIST's files must have its digests."""
    from purpleteam.data.arrays import is_array_file
    from purpleteam.data.checks import claims_mnist, examine
    from purpleteam.data.sources.mnist import verify_folder
    from purpleteam.scan.formats import read_arrays

    if not folder.is_dir() and not is_array_file(folder):
        raise UsageError(f"folder {str(folder)!r} does not exist")
    if not is_array_file(folder) and claims_mnist(folder):
        files = verify_folder(folder)
        verified = all(file.verdict == "pass" for file in files)
        listed = [asdict(file) for file in files]
        return Answer(
            values={"folder": str(folder), "verified": verified, "files": listed},
            shown=table([(file.verdict, file.name, file.reason or file.found) for file in files]),
            exit_code=int(not verified),
        )

    def first(counts: Mapping[str, int]) -> str:
        return ", ".join(f"{name} {count}" for name, count in list(counts.items())[:10])

    summary = examine(folder, read_arrays)
    lines = [f"{folder}: {'not whole' if summary.problems else 'whole'}, {summary.count} images"]
    for split, counts in summary.splits.items():
        more = f" and {len(counts) - 10} more classes" if len(counts) > 10 else ""
        lines.append(f"{split or 'no splits'}: {sum(counts.values())} ({first(counts)}{more})")
    for heading, counts in (("sizes", summary.sizes), ("pixels", summary.modes)):
        lines += [f"{heading}: {first(counts)}"] if counts else []
    lines += [f"problem: {problem}" for problem in summary.problems]
    lines += [f"note: {note}" for note in summary.notes]
    code = 0 if not summary.problems else 1 if summary.count or summary.unreadable else 2
    return Answer(values={"folder": str(folder)} | summary.to_json(), shown=lines, exit_code=code)
