"""ls, doctor, data: what there is and what this machine has, found without heavy imports."""

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata, util
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


def list_all() -> Answer:
    """What there is: zoo models, runs, profiles, and parts by name."""
    from purpleteam.core.cards import zoo_names
    from purpleteam.data import DATASETS
    from purpleteam.pipeline.config import profiles

    runs = sorted(str(path.parent) for path in Path("runs").glob("*/run.json"))
    states = {run: _state(Path(run)) for run in runs}
    values: dict[str, Any] = {
        "models": zoo_names(),
        "datasets": list(DATASETS),
        "profiles": list(profiles()),
        "runs": runs,
        "verification": states,
    }
    try:
        from purpleteam.attacks.evasion import ATTACKS
        from purpleteam.attacks.poison import POISONS
        from purpleteam.defences import DEFENCES
        from purpleteam.defences.detection.model import MODEL_DETECTORS
        from purpleteam.defences.detection.training_set import TRAINING_SET_DETECTORS
        from purpleteam.defences.repair import REPAIRS
        from purpleteam.models import ARCHITECTURES, RECIPES
    except ModuleNotFoundError:
        values["parts"] = "pip install 'purpleteam[lab]' for attacks, defences and training"
    else:
        values |= {
            "architectures": list(ARCHITECTURES),
            "recipes": list(RECIPES),
            "attacks": list(ATTACKS),
            "poisons": list(POISONS),
            "defences": list(DEFENCES),
            "training_set_detectors": list(TRAINING_SET_DETECTORS),
            "model_detectors": list(MODEL_DETECTORS),
            "repairs": list(REPAIRS),
        }
    rows = [
        (key, ", ".join(value) if isinstance(value, list) else value)
        for key, value in values.items()
        if key not in ("runs", "verification")
    ]
    rows += [("run", f"{run}: {state['message']}") for run, state in states.items()]
    return Answer(values=values, shown=table(rows))


def _state(path: Path) -> dict[str, str]:
    """Return what a run's records say of it, in a line."""
    from purpleteam.core.verification import verify_records

    try:
        found = verify_records(path)
    except RunError as error:
        return {"verdict": "unknown", "status": "unknown", "message": str(error)}
    wrong = found.of(found.verdict)[0].message if found.verdict != "pass" else ""
    told = {"pass": "records whole", "fail": f"NOT WHOLE: {wrong}", "unknown": wrong}
    message = f"{found.status}, {told[found.verdict]}"
    return {"verdict": found.verdict, "status": found.status, "message": message}


def doctor() -> Answer:
    """What is installed, what is missing, and how to get it."""
    found = [("python", True, platform.python_version()), ("cores", True, str(os.cpu_count()))]
    for name, extra in EXTRAS.items():
        try:
            present = util.find_spec(name) is not None
        except ImportError:
            present = False
        distribution = "scikit-learn" if name == "sklearn" else name
        how = metadata.version(distribution) if present else f"pip install 'purpleteam[{extra}]'"
        found.append((name, present, how))
    found += [("torch build", *_torch_build()), ("MNIST", *_mnist())]
    checks = [{"what": what, "ok": ok, "detail": detail} for what, ok, detail in found]
    rows = [("ok" if ok else "missing", what, detail) for what, ok, detail in found]
    return Answer(values={"checks": checks}, shown=table(rows))


def _torch_build() -> tuple[bool, str]:
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return False, "pip install 'purpleteam[lab]'; see the README for CPU"
    names = (str(found.metadata["Name"]) for found in metadata.distributions())
    cuda = any(name.lower().startswith("nvidia-") for name in names)
    return True, f"{version}, {'CUDA' if cuda else 'CPU'}"


def _mnist() -> tuple[bool, str]:
    from purpleteam.data.sources.mnist import find_mnist

    try:
        folder = find_mnist()
    except PurpleError as error:
        return False, str(error)
    if folder is None:
        return False, "purple data fetch mnist, or point PURPLETEAM_DATA at it"
    return True, str(folder)


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
    from purpleteam.data.checks import claims_mnist
    from purpleteam.data.sources.mnist import verify_folder

    if not folder.is_dir() and not is_array_file(folder):
        raise UsageError(f"folder {str(folder)!r} does not exist")
    if is_array_file(folder) or not claims_mnist(folder):
        return _described(folder)
    found = verify_folder(folder)
    whole = all(file.verdict == "pass" for file in found)
    files = [asdict(file) for file in found]
    return Answer(
        values={"folder": str(folder), "verified": whole, "files": files},
        shown=table([(file.verdict, file.name, file.reason or file.found) for file in found]),
        exit_code=int(not whole),
    )


def _described(path: Path) -> Answer:
    """Tell what is in a data set that is not MNIST: exit 0 whole, 1 not, 2 no image to judge."""
    from purpleteam.data.checks import examine
    from purpleteam.scan.formats import read_arrays

    found = examine(path, read_arrays)
    lines = [f"{path}: {'not whole' if found.problems else 'whole'}, {found.count} images"]
    for split, counts in found.splits.items():
        more = f" and {len(counts) - 10} more classes" if len(counts) > 10 else ""
        lines.append(f"{split or 'no splits'}: {sum(counts.values())} ({_first(counts)}{more})")
    for what, counted in (("sizes", found.sizes), ("pixels", found.modes)):
        lines += [f"{what}: {_first(counted)}"] if counted else []
    lines += [f"problem: {problem}" for problem in found.problems]
    lines += [f"note: {note}" for note in found.notes]
    code = 0 if not found.problems else 1 if found.count or found.unreadable else 2
    return Answer(values={"folder": str(path)} | found.to_json(), shown=lines, exit_code=code)


def _first(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in list(counts.items())[:10])
