"""Every stage on colour shapes, easy and hard, 3 to 1,000 classes: results/colour.json.

    python benchmarks/colour.py --work FOLDER [--seeds 0,1,2] [--only NAME]

Each data set and seed is one `purple run` on one core, in a folder of its own that is continued
where it exists; the embedded digits go beside. Numbers are read from the runs' records. What is
there is never done again, and the file is written after each run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from purpleteam.core.machine import machine, versions
from purpleteam.core.records import Measurement, Note, Record
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.schema import DATASET, MODEL_SCAN, NO_REPAIR, TRAINING_SET_SCAN
from purpleteam.core.statistics import Rate

RESULTS = Path(__file__).resolve().parent.parent / "results" / "colour.json"
COLOUR = 8 / 255
HARDENED = "fast"
STAGES = ["data", "models", "attacks", "certify", "defences"]
"""Of the first seed of a case; of others the first three."""


@dataclass(frozen=True)
class Case:
    """A data set, and what is asked of it."""

    dataset: str
    epochs: int
    epsilon: float = COLOUR
    lab: bool = True
    recipes: tuple[str, ...] = ()  # with the first seed
    seeds: int = 3


CASES = {
    "digits": Case("digits", 20, epsilon=0.1, recipes=(HARDENED,)),
    "10 easy": Case("drawn_shapes", 8, recipes=(HARDENED,)),
    "10 hard": Case("drawn_shapes:hard=true", 8, recipes=(HARDENED,)),
    "3 easy": Case("drawn_shapes:classes=3,images=1500", 8),
    "3 hard": Case("drawn_shapes:classes=3,images=1500,hard=true", 8),
    "100 easy": Case("drawn_shapes:classes=100,images=6000", 8, lab=False, seeds=1),
    "1000 easy": Case("drawn_shapes:classes=1000,images=10000", 8, lab=False, seeds=1),
}


def asked(case: Case, seed: int) -> dict[str, Any]:
    """Return the configuration of the run."""
    whole = not seed
    return {
        "dataset": case.dataset,
        "stages": STAGES if whole else STAGES[:3],
        "seed": seed,
        "models": {"epochs": case.epochs, "redrawn": 0},
        "evasion": {
            "attacks": ["fgsm", "pgd:steps=20"],
            "epsilon": case.epsilon,
            "limit": 200,
            "checked": 50,
            "curve": [],
        },
        "certify": {
            "changes": [1, 5] if whole else [],
            "epsilons": [case.epsilon / 4, case.epsilon] if whole else [],
            "seconds": 0.3,
            "limit": 40,
        },
        "defences": {"recipes": list(case.recipes if whole else ())},
        "backdoors": {
            "own": False,
            "served": False,
            "attacks": ["badnets"] if case.lab else [],
            "epochs": case.epochs,
            "repairs": ["retrain", "unlearn", "fine_tune"],
            "plant_again": [],
            "trusted": 150,
            "rank_detectors": False,
        },
    }


def toml(values: Mapping[str, Any]) -> str:
    """Return a configuration as the file that `--config` reads."""
    flat = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in flat.items()]
    for name, table in values.items():
        if isinstance(table, Mapping):
            lines += [f"[{name}]", *(f"{key} = {json.dumps(one)}" for key, one in table.items())]
    return "\n".join(lines) + "\n"


def told(records: Iterable[Record]) -> dict[str, Any]:
    """Return what a run's records say, in short."""
    found: dict[str, Any] = {"attacks": [], "certified": [], "backdoors": [], "scans": []}
    for one in records:
        if isinstance(one, Note):
            facts = one.facts
            if one.name == DATASET:
                shape = (facts["height"], facts["width"], facts["channels"])
                sizes = {name: split["n"] for name, split in facts["splits"].items()}
                found["data"] = {"digest": facts["digest"], "classes": len(facts["classes"])}
                found["data"] |= {"shape": shape, "images": sizes}
            if one.name in (MODEL_SCAN, TRAINING_SET_SCAN):
                scan = {"of": one.name, "backdoored": facts["backdoored"]}
                scan |= {"planted": facts["planted"], "target_label": facts.get("target_label")}
                scan |= {"kind": facts.get("kind"), "source_labels": facts.get("source_labels")}
                found["scans"].append(scan | {"reasons": list(facts.get("reasons", ()))})
            if one.name == NO_REPAIR:
                repair = {"model": facts["model_name"], "not_done": facts["why"]}
                found["backdoors"].append(repair)
        if not isinstance(one, Measurement) or not isinstance(one.value, Rate):
            continue
        model, value = one.subject.get("model_name"), one.value.to_json()
        about = {"record": one.id, "model": model, **value}
        if one.name == "clean_accuracy" and model in ("baseline", "hardened-fast"):
            if not one.how:
                found.setdefault("clean", {})[model] = value
        elif one.name == "robust_accuracy":
            keys = ("attack", "epsilon", "norm", "steps")
            verdict = one.detail.get("soundness", {}).get("verdict")
            about |= {key: one.how.get(key) for key in keys}
            found["attacks"].append(about | {"soundness": verdict})
        elif one.name == "certified_accuracy":
            about |= {"epsilon": one.how.get("epsilon"), "method": one.how.get("method")}
            found["certified"].append(about | {"counts": dict(one.detail.get("counts", {}))})
        elif one.name in ("attack_success_rate", "base_rate", "recovered_accuracy"):
            about |= {"name": one.name, "repair": one.how.get("repair")}
            about |= {"poisoned": one.how.get("poisoned")}
            found["backdoors"].append(about)
    return found


def measure(name: str, case: Case, seed: int, work: Path) -> dict[str, Any]:
    """Run one case, or go on with it, and return what it measured."""
    folder, config = work / f"{name.replace(' ', '-')}-{seed}", work / "asked.toml"
    work.mkdir(parents=True, exist_ok=True)
    config.write_text(toml(asked(case, seed)), encoding="utf-8")
    command = [str(Path(sys.executable).with_name("purple")), "run", "--config", str(config)]
    command += ["--out", str(folder), "--quiet", *(["--resume"] if folder.exists() else [])]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    found = told(RunFolder.open(folder).records())
    return {"exit_code": done.returncode, "cpu_seconds": round(spent, 1), **found}


def main() -> None:
    """Measure what is missing, case by case, the first seed of all cases first."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="Folder of the runs.")
    parser.add_argument("--seeds", default="0,1,2", help="Seeds, with commas.")
    parser.add_argument("--only", choices=CASES, help="One case.")
    given = parser.parse_args()
    kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"runs": {}}
    runs: dict[str, dict[str, Any]] = kept["runs"]
    for seed in given.seeds.split(","):
        for name, case in CASES.items():
            one = runs.setdefault(name, {})
            if given.only not in (None, name) or seed in one or int(seed) >= case.seeds:
                continue
            one[seed] = measure(name, case, int(seed), given.work)
            one[seed]["asked"] = asked(case, int(seed))
            content = {"machine": machine(), "versions": versions(), "runs": runs}
            RESULTS.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main()
