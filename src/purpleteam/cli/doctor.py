"""ls, doctor: what there is, and what this machine has, without importing anything heavy."""

from __future__ import annotations

import os
import platform
from importlib import metadata, util
from pathlib import Path
from typing import Any

from purpleteam.cli.build import Answer
from purpleteam.core.errors import PurpleError, RunError
from purpleteam.verbs.result import table

EXTRAS = {
    "torch": "lab",
    "sklearn": "lab",
    "onnx": "lab",
    "onnxruntime": "serve",
    "uvicorn": "serve",
    "bandit": "base",
}


def list_all() -> Answer:
    """What there is: zoo models, runs, profiles, and parts by name."""
    from purpleteam.core.cards import zoo_names
    from purpleteam.data import DATASETS
    from purpleteam.pipeline.config import profile_names

    runs = sorted(str(path.parent) for path in Path("runs").glob("*/run.json"))
    states = {run: _state(Path(run)) for run in runs}
    values: dict[str, Any] = {
        "models": zoo_names(),
        "datasets": list(DATASETS),
        "profiles": profile_names(),
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
