"""Clean against certified accuracy of several recipes by their weight; into results/front.json.

`python benchmarks/front.py 0.1 --work DIR` trains each recipe at each of its weights, for the same
number of epochs on the same images, certifies the first test images, and draws the front
(docs/images/front-0.1.svg). Stopped, it goes on where it was. No weight is chosen by what it says:
it shows the whole line.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import purpleteam as pt
from purpleteam.certify.cascade import certify_ball
from purpleteam.core.machine import machine, versions
from purpleteam.data.folders import load_dataset
from purpleteam.models.loading import load

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "front.json"
FIXED = "batch_size=128,learning_rate=2e-3,schedule=one_cycle"
RECIPES: dict[str, tuple[str, str, tuple[float, ...]]] = {
    "ibp": (FIXED, "robust_weight", (0.25, 0.5, 0.75, 1.0)),
    "crown_ibp": (FIXED, "robust_weight", (0.25, 0.5, 0.75, 1.0)),
    "sabr": (f"{FIXED},steps=2", "relative_size", (0.1, 0.3, 0.6, 0.9)),
    "mtl_ibp": (FIXED, "bound_share", (0.05, 0.2, 0.5, 0.9)),
    "trades": (f"{FIXED},steps=2", "beta", (1.0, 2.0, 4.0, 8.0)),
}
"""For each recipe what is fixed, what its weight is called, and the weights."""


def main() -> None:
    """Train and certify what is not there yet; keep each point as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("epsilon", type=float)
    parser.add_argument("--work", type=Path, default=Path("runs/front"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=12_000, help="of training, the first")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--tested", type=int, default=1000, help="test images, the first")
    parser.add_argument("--ramp", action="store_true", help="before each net")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset("mnist")
    data = replace(
        data, train=data.train.first(asked.images), validation=data.validation.first(500)
    )
    shared = {key: getattr(asked, key) for key in ("seed", "images", "epochs", "tested", "ramp")}
    plans = [
        (f"{name}:{weight}={value:g}", fixed)
        for name, (fixed, weight, values) in RECIPES.items()
        for value in values
    ]
    for place, (plan, fixed) in enumerate(plans):
        key = f"{asked.epsilon:g}/{plan}"
        kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"points": {}}
        if all(kept["points"].get(key, {}).get(name) == told for name, told in shared.items()):
            continue
        recipe = f"{plan},{fixed},ramp={str(asked.ramp).lower()}"
        found = point(data, recipe, asked)
        # Read again: another front may have been drawn in the meantime.
        kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"points": {}}
        kept["points"][key] = shared | {"weight": plan, "place": place} | found
        kept["machine"], kept["versions"] = machine(), versions()
        RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def point(data: Any, recipe: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Train by a recipe; return clean and certified accuracy, and what the training took."""
    name = recipe.replace(":", "-").replace(",", "-").replace("=", "-")
    stem = asked.work / f"{asked.epsilon:g}-{name}-{asked.seed}"
    started = time.process_time()
    pt.harden(
        data,
        recipe=recipe,
        epsilon=asked.epsilon,
        arch="certified_cnn_bn",
        seed=asked.seed,
        epochs=asked.epochs,
        threads=1,
        out=stem,
    )
    trained = time.process_time() - started
    images = data.test.first(asked.tested)
    found = certify_ball(
        load(str(stem)).module, images, epsilon=asked.epsilon, method="crown", seconds=0.5
    )
    return {
        "recipe": recipe,
        "epsilon": asked.epsilon,
        "clean_accuracy": found.clean_accuracy.to_json(),
        "certified_accuracy": found.certified_accuracy.to_json(),
        "training_cpu_seconds": round(trained, 1),
    }


if __name__ == "__main__":
    main()
