"""Training with differential privacy on MNIST, and its audit, into results/privacy.json.

`python benchmarks/privacy_dp.py row --epsilon 3 --seed 0` trains by the frozen recipe of a budget,
as `purple harden` does, and measures the 10,000 test images once. Everything was chosen on the
last 5,000 training images, which are held out. `audit` bounds epsilon from below by 1,000 canaries
in one run, of that recipe and of a tiny net over 20 seeds, and with each planted bug.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from torch import nn

import purpleteam as pt
from purpleteam.core.config import build as build_part
from purpleteam.core.config import parse_part
from purpleteam.core.machine import machine, versions
from purpleteam.core.statistics import mean_over_seeds
from purpleteam.data.folders import load_dataset
from purpleteam.data.images import Dataset
from purpleteam.data.sources.digits import load_digits
from purpleteam.defences.training.dp_sgd import DPSGD
from purpleteam.models import build
from purpleteam.models.architectures import initialise
from purpleteam.privacy.audit import Bug, audit

RESULTS = Path(__file__).resolve().parent.parent / "results" / "privacy.json"
NET = "scattering"
DELTA = 1e-5
RECIPES = {
    0.5: "dp_sgd:epochs=15",
    1.0: "dp_sgd:epochs=20",
    2.0: "dp_sgd",
    3.0: "dp_sgd",
    4.0: "dp_sgd",
    8.0: "dp_sgd",
}
"""The frozen recipe of each budget."""
TINY = "dp_sgd:batch_size=300,epochs=10"
BUGS: tuple[Bug, ...] = ("noise left out", "clipping left out")
SEEDS = 20


def main() -> None:
    """Do what is asked, and keep the other parts of the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("row")
    command.add_argument("--epsilon", type=float, required=True, choices=RECIPES)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--arch", default=NET)
    command.add_argument("--work", type=Path, default=Path("runs/privacy"))
    commands.add_parser("audit")
    asked = parser.parse_args()
    told = row(asked) if asked.command == "row" else audits()
    # Read now: another part may have been written in the meantime.
    kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    part = kept.setdefault("audit" if asked.command == "audit" else "dp", {})
    if asked.command == "audit":
        part |= told
    else:
        part.setdefault("rows", {})[f"{asked.arch}/{asked.epsilon:g}/{asked.seed}"] = told
        part["summary"] = summary(part["rows"])
    part["machine"], part["versions"] = machine(), versions()
    RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def row(asked: argparse.Namespace) -> dict[str, Any]:
    """Train and measure one model; return what its row says."""
    stem = asked.work / f"{asked.arch}-{asked.epsilon:g}-{asked.seed}"
    recipe = RECIPES[asked.epsilon]
    started, clock = time.process_time(), time.perf_counter()
    trained = pt.harden(
        "mnist",
        recipe=recipe,
        epsilon=asked.epsilon,
        arch=asked.arch,
        seed=asked.seed,
        threads=1,
        out=stem,
    )
    cost = time.process_time() - started, time.perf_counter() - clock
    found = pt.evaluate(images="mnist", model=str(stem), split="test")
    card = json.loads(stem.with_name(f"{stem.name}.json").read_text("utf-8"))
    return {
        "arch": asked.arch,
        "epsilon": asked.epsilon,
        "delta": DELTA,
        "seed": asked.seed,
        "plan": recipe,
        "model": card["digest"],
        "recipe": card["recipe"],
        "privacy": card["recipe"]["privacy"],
        "validation_accuracy": trained.validation_accuracy,
        "clean_accuracy": found.to_json()["clean_accuracy"],
        "cpu_seconds": round(cost[0], 1),
        "seconds": round(cost[1], 1),
    }


def summary(rows: dict[str, Any]) -> dict[str, Any]:
    """Return the mean over seeds for each net and budget, with its t interval."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for name in sorted(rows):
        groups.setdefault(name.rpartition("/")[0], []).append(rows[name])
    told = {}
    for name, group in groups.items():
        values = [one["clean_accuracy"]["value"] for one in group]
        told[name] = {
            "seeds": [one["seed"] for one in group],
            "spent": max(one["privacy"]["epsilon"] for one in group),
            "clean_accuracy": group[0]["clean_accuracy"]
            if len(group) == 1
            else mean_over_seeds(values, bounds=(0.0, 1.0)).to_json(),
            "cpu_seconds": max(one["cpu_seconds"] for one in group),
        }
    return told


def recipe_of(text: str, epsilon: float) -> DPSGD:
    """Return the recipe that a plan means, of a budget."""
    return build_part(DPSGD, parse_part(text)[1] | {"epsilon": epsilon}, text)


def audits() -> dict[str, Any]:
    """Return audits of the recipe itself, of a tiny net over seeds, and of planted bugs."""
    digits = load_digits()
    few = dataclasses.replace(
        digits, train=digits.train.first(200), validation=digits.validation.first(20)
    )
    tiny = [audited(TINY, epsilon, few, seed) for epsilon in (1.0, 3.0) for seed in range(SEEDS)]
    bugs = [audited(TINY, 3.0, few, seed, bug=bug) for bug in BUGS for seed in range(SEEDS)]
    mnist = load_dataset("mnist")
    whole = audited(RECIPES[3.0], 3.0, mnist, 0, arch=NET)
    return {
        "mnist": whole,
        "tiny": tiny,
        "tiny_above": sum(not one["holds"] for one in tiny),
        "bugs": bugs,
        "bugs_missed": sum(one["holds"] for one in bugs),
    }


def audited(
    plan: str,
    epsilon: float,
    data: Dataset,
    seed: int,
    *,
    arch: str | None = None,
    bug: Bug | None = None,
) -> dict[str, Any]:
    """Return one audit, of a linear net where no architecture is named."""
    height, width, channels = data.shape
    shape, classes = (channels, height, width), len(data.classes)
    net = (
        build(arch, shape, classes, seed=seed)
        if arch
        else initialise(
            lambda *_: nn.Sequential(nn.Flatten(), nn.Linear(height * width * channels, classes)),
            shape,
            classes,
            seed,
        )
    )
    started = time.process_time()
    found = audit(recipe_of(plan, epsilon), net, data, seed=seed, bug=bug)
    told = {"plan": plan, "arch": arch or "linear", "epsilon": epsilon}
    return told | found.to_json() | {"cpu_seconds": round(time.process_time() - started, 1)}


if __name__ == "__main__":
    main()
