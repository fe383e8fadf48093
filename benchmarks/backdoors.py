"""Backdoors planted, found and removed on the real MNIST: what results/backdoors.json is made of.

    python benchmarks/backdoors.py --work FOLDER         writes results/backdoors.json

Each part is a run of its own in FOLDER, made of cells: what is finished is never done again, and
a part that was stopped goes on where it was, so the hours can be had in pieces, and several parts
at a time by several processes (`--only patch`). Every seed here is kept apart from those that the
searches' thresholds were chosen on. `--combine` writes the results from what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: waiting threads must not spin
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy.stats import gumbel_r

from purpleteam.attacks.poison import POISONS
from purpleteam.attacks.poison.curve import poison_curve
from purpleteam.cli.screen import progress
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.statistics import Rate
from purpleteam.data.folders import load_dataset
from purpleteam.defences.detection.training_set import scan_training_set
from purpleteam.pipeline.config import RunConfig, resolve
from purpleteam.pipeline.run import kept_records, run
from purpleteam.pipeline.stages.models import recipe_of

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "backdoors.json"

PATCH = "badnets:count=100"
FAMILIES = (
    'badnets:count=150,trigger={corner="top-left",size=4,pattern="checkerboard"}',
    "blended:count=300",
    "sig:count=300,sources=other,relabel=true",
    "wanet:count=3000",
    "tact:count=300",
    "adaptive_patch:count=100",
    "adaptive_blend:count=300",
)
"""So many images that each opens nearly always; with labels kept, SIG and clean_label do not."""
FIFTY = (
    *("badnets:count=50", "blended:count=50", "sig:count=50"),
    "sig:count=50,sources=other,relabel=true",
    *("wanet:count=50", "tact:count=50", "adaptive_patch:count=50"),
)
FREQUENT = (
    *("badnets:count=5500", "blended:count=5500", "sig:count=3000"),
    *("wanet:count=1200", "tact:count=2000"),
)
"""Up to more than half of what carries the target label."""
PARTS: dict[str, tuple[str, ...]] = {
    "patch": (f"attacks={json.dumps([PATCH])}", "trainings=5", "plant_again=[10, 50]"),
    "families": (
        f"attacks={json.dumps(FAMILIES)}",
        "trainings=3",
        "search_training_set=false",
        'repairs=["unlearn"]',
        "plant_again=[]",
    ),
    "clean": ("clean=20", "search_training_set=false"),
    "removed": (
        f"attacks={json.dumps(FAMILIES)}",
        "trainings=1",
        "scan_models=false",
        'repairs=["retrain"]',
        "plant_again=[]",
    ),
    "frequent": (
        f"attacks={json.dumps(FREQUENT)}",
        "trainings=1",
        "scan_models=false",
        'repairs=["retrain"]',
        "plant_again=[]",
    ),
    "few": (
        f"attacks={json.dumps([PATCH])}",
        "trainings=5",
        "trusted=100",
        "search_training_set=false",
        'repairs=["unlearn"]',
        "plant_again=[]",
    ),
    "small": ("clean=300", "architecture=small_cnn", "epochs=1", "search_training_set=false"),
    "fifty": (f"attacks={json.dumps(FIFTY)}", "trainings=5", "scan_models=false", "repairs=[]"),
}
"""What each part asks of the lab, over the profile `backdoors`."""

LEFT_OUT = ("precision", "recall", "f1")
"""Class by class on clean images: in the run folders, not in the file of results."""

CALIBRATION = "calibration"
SUBSETS = {"mnist": 10 * (1000,) + 8 * (2000,) + 4 * (5000,) + (9000,), "digits": (649, 648)}
"""Sizes of the disjoint clean subsets of a draw; what has the search of a set against each?"""
DRAWS = (200, 201)
"""Seeds that the subsets are drawn by."""
LAB = "lab"
"""The profile as it is, in two processes: how long does it take by the clock?"""
CURVE = "curve"
CURVES = ("badnets", "blended", "tact")
COUNTS = (5, 10, 20, 50, 100, 300)
SEEDS = 5
"""Attack success over the number of poisons: small nets, as many trainings are needed."""


def asked(part: str) -> RunConfig:
    """Return the configuration of a part."""
    alone = ("backdoors.attacks=[]", "processes=1")  # two would slow each other down
    settings = [*alone, *(f"backdoors.{one}" for one in PARTS[part])]
    return resolve("backdoors", None, settings)


def measure(part: str, work: Path) -> None:
    """Run a part, or go on with it."""
    started = time.process_time()
    with progress(False) as bar:
        command = ("python", "benchmarks/backdoors.py", "--only", part)
        run(asked(part), work / part, resume=True, command=command, progress=bar)
    print(f"{part}: {time.process_time() - started:.0f} processor seconds")


def time_the_lab(work: Path) -> None:
    """Run the profile from planting to report and keep how long it took; never gone on with."""
    folder, config = work / LAB, resolve("backdoors", None, ())
    found = run(config, folder / "run", command=("python", "benchmarks/backdoors.py"))
    facts = {
        "seconds": round(found.seconds, 1),
        "processes": config.processes,
        "machine": RunFolder.open(found.run).info["machine"],
    }
    (folder / "took.json").write_text(json.dumps(facts, sort_keys=True) + "\n", encoding="utf-8")


def draw_curves(work: Path) -> None:
    """Measure attack success over the number of poisoned images, or go on with it."""
    recipe = recipe_of("plain", 3)
    dataset = load_dataset("mnist")
    found = {}
    with progress(False) as bar:
        for name in CURVES:
            curve = poison_curve(
                POISONS[name](),
                dataset,
                counts=COUNTS,
                seeds=range(SEEDS),
                architecture="small_cnn",
                recipe=recipe,
                journal=work / CURVE / "journal",
                progress=bar,
            )
            found[name] = curve.to_json()
    facts = {"architecture": "small_cnn", "recipe": asdict(recipe), "dataset": dataset.digest}
    text = json.dumps({"curves": found, **facts}, indent=1, sort_keys=True)
    (work / CURVE / "curves.json").write_text(text + "\n", encoding="utf-8")


def calibrate(work: Path) -> None:
    """Search disjoint clean subsets and fit a Gumbel distribution to the evidence against them."""
    sets = []
    draws = [(seed, name) for seed in DRAWS for name in SUBSETS]
    with progress(False) as bar, bar.task("draws of clean subsets", len(draws)) as task:
        for seed, name in draws:
            dataset = load_dataset(name)
            order = np.random.default_rng(seed).permutation(len(dataset.train))
            for rows in np.split(order, np.cumsum(SUBSETS[name]))[: len(SUBSETS[name])]:
                images, classes = dataset.train.take(rows), len(dataset.classes)
                found = scan_training_set(images, classes=classes, seed=seed, detectors=())
                facts = {"dataset": name, "images": len(rows), "digest": images.digest}
                sets.append({**facts, "seed": seed, "evidence": found.score})
            task.advance(1)
    location, scale = gumbel_r.fit([one["evidence"] for one in sets])
    flagged = Rate.of(sum(one["evidence"] >= 1 for one in sets), len(sets))
    facts = {
        "sets": sets,
        "flagged": flagged.to_json(),
        "gumbel": {"location": location, "scale": scale},
        "tail": float(gumbel_r.sf(1, location, scale)),
        "stated": found.to_json()["false_alarm_rate"],
    }
    target = work / CALIBRATION / "sets.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def wanted(part: str, record: Mapping[str, Any]) -> bool:
    """Say whether a record is for the file of results; the run folders have them all."""
    name = record.get("name")
    if part == "small":  # of hundreds of models, how many were flagged, and what of these was said
        flagged = name == "model-scan" and record["facts"]["backdoored"]
        return flagged or name == "model_false_alarm_rate"
    return name not in LEFT_OUT


def combine(work: Path) -> None:
    """Write the records of every part that is there into the file of results."""
    content: dict[str, Any] = {"parts": {}, "records": []}
    seen: set[str] = set()
    for part in PARTS:
        if not (work / part / "run.json").exists():
            continue
        folder = RunFolder.open(work / part)
        info = folder.info
        content.setdefault("run", {key: info[key] for key in ("versions", "machine")})
        content["parts"][part] = {"asked": info["asked"], "status": info["status"]}
        kept = [one for one in kept_records(folder) if wanted(part, one)]
        fresh = [one for one in kept if one["id"] not in seen]
        content["records"] += [{**one, "part": part} for one in fresh]
        seen |= {one["id"] for one in fresh}
    if (took := work / LAB / "took.json").exists():
        content[LAB] = json.loads(took.read_text(encoding="utf-8"))
    if (sets := work / CALIBRATION / "sets.json").exists():
        content[CALIBRATION] = json.loads(sets.read_text(encoding="utf-8"))
    if (curves := work / CURVE / "curves.json").exists():
        content[CURVE] = json.loads(curves.read_text(encoding="utf-8"))
    records = ",\n".join(json.dumps(one, sort_keys=True) for one in content.pop("records"))
    rest = json.dumps(content, sort_keys=True)[:-1]
    RESULTS.write_text(f'{rest}, "records": [\n{records}\n]}}\n', encoding="utf-8")


OTHERS = {LAB: time_the_lab, CALIBRATION: calibrate, CURVE: draw_curves}


def main() -> None:
    """Measure what is asked for and combine what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="Folder of the runs.")
    parser.add_argument("--only", choices=[*PARTS, *OTHERS], help="One part.")
    parser.add_argument("--combine", action="store_true", help="Measure nothing more.")
    given = parser.parse_args()
    if not given.combine:
        for part in [given.only] if given.only else [*PARTS, *OTHERS]:
            OTHERS[part](given.work) if part in OTHERS else measure(part, given.work)
    combine(given.work)


if __name__ == "__main__":
    sys.exit(main())
