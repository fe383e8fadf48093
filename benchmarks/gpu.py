"""What a card is asked to do, in ten minutes or more: parity with the CPU, then the record rows.

`make gpu` on a machine with CUDA. First the same images are certified and attacked on both, and a
verdict that differs by more than rounding ends it; then each row is trained within its minutes,
certified and attacked on all test images. Everything goes on where it was stopped. The records are
in results/gpu.json, the weights (half of them float16, at most 16 MB) in the work folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import purpleteam as pt
from purpleteam.attacks.evaluate import evaluate
from purpleteam.attacks.evasion.apgd import APGDCE
from purpleteam.certify.cascade import certify_ball
from purpleteam.core.machine import machine, versions
from purpleteam.data.folders import load_dataset
from purpleteam.models.loading import load

RESULTS = Path(__file__).resolve().parent.parent / "results" / "gpu.json"
NEAR = 1e-3  # margins closer to 0 may fall on either side
PARITY = (("robust-0.3", 0.02), ("standard", 0.005))
IBP = "ibp:schedule=steps,learning_rate=5e-4,gradient_clip=10,l1=2e-6,augmentation=shift"
ROWS: dict[str, dict[str, Any]] = {
    "cnn7 ibp 0.3 ramp": {"recipe": f"{IBP},ramp=true", "epsilon": 0.3, "arch": "cnn7"},
    "cnn7 mtl_ibp 0.3 ramp": {
        "recipe": f"mtl_{IBP},ramp=true",
        "epsilon": 0.3,
        "arch": "cnn7",
    },
    "cnn7 mtl_ibp 0.1": {
        "recipe": f"mtl_{IBP},bound_share=0.05",
        "epsilon": 0.1,
        "arch": "cnn7",
    },
    "wide trades 0.3 ramp": {
        "recipe": "trades:ramp=true,augmentation=shift,averaging=ema",
        "epsilon": 0.3,
        "arch": "wide_residual_cnn",
    },
}


def main() -> None:
    """Check parity, then do the rows one by one, and keep what is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--minutes", type=float, default=5.0, help="of training, for each row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", nargs="*", choices=[*ROWS, []], default=[*ROWS])
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("error: there is no CUDA device; on a CPU: python benchmarks/certify.py")
    kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"rows": {}}
    kept["machine"] = machine() | {"device": torch.cuda.get_device_name()}
    kept["versions"] = versions()
    kept["parity"] = [parity(*one) for one in PARITY]
    keep(kept)
    for name in asked.rows:
        key = f"{name}/{asked.seed}"
        if key not in kept["rows"]:
            kept["rows"][key] = row(name, asked)
            keep(kept)


def keep(told: dict[str, Any]) -> None:
    """Write the records, whole at any moment."""
    fresh = RESULTS.with_suffix(".tmp")
    fresh.write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    fresh.replace(RESULTS)


def parity(name: str, epsilon: float) -> dict[str, Any]:
    """Return how CPU and card differ on 500 images; one that differs for real ends it all."""
    images = load_dataset("mnist").validation.first(500)
    told = []
    for device in (torch.device("cpu"), torch.device("cuda")):
        model = load(name, device=device).module
        proof = certify_ball(model, images, epsilon=epsilon, method="crown_ibp", device=device)
        attacked = evaluate(model, images, APGDCE(epsilon=0.3, steps=20))
        told.append((proof.margins, attacked.robust_accuracy.value))
    (ours, left), (theirs, right) = told
    apart = (ours > 0) != (theirs > 0)
    wrong = apart & (np.minimum(np.abs(ours), np.abs(theirs)) > NEAR)
    found = {
        "model": name,
        "epsilon": epsilon,
        "largest_difference": float(np.nanmax(np.abs(ours - theirs))),
        "verdicts_apart": int(apart.sum()),
        "robust_accuracy": [left, right],
    }
    if wrong.any() or abs(left - right) > 0.02:
        sys.exit(f"error: the card does not agree with the CPU: {json.dumps(found)}")
    return found


def row(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Train, certify and attack one row on the card."""
    plan, stem = ROWS[name], asked.work / f"{name.replace(' ', '-')}-{asked.seed}"
    started = time.perf_counter()
    if not stem.with_name(f"{stem.name}.json").exists():
        pt.harden("mnist", **plan, seed=asked.seed, budget=asked.minutes, device="cuda", out=stem)
    trained = time.perf_counter() - started
    common: dict[str, Any] = {"split": "test", "device": "cuda", "epsilon": [plan["epsilon"]]}
    proof = pt.certify("mnist", model=str(stem), method="alpha_crown", seconds=1.0, **common)
    attacked = pt.attack(str(stem), "mnist", attack=["autoattack"], **common)
    return {
        "plan": plan,
        "seconds": round(trained, 1),
        "clean_accuracy": proof.values["clean_accuracy"],
        "certified_accuracy": proof.values["certified_accuracy"],
        "counts": proof.values["counts"],
        "robust_accuracy": attacked.values["robust_accuracy"],
        "model": proof.values["subject"]["model"],
    }


if __name__ == "__main__":
    main()
