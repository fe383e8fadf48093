"""Certified accuracy on MNIST, row by row, and what certificates cost; into results/certified.json.

`python benchmarks/certify.py row certified-0.1 --seed 0 --work DIR` trains by the recipe of a row
(it goes on where it was stopped), certifies the 10,000 test images and writes the row. Everything
was chosen on the last 5,000 training images. `second ROW` certifies the same weights on test digits
that are turned, scaled and redrawn, which nobody tuned on; `speed` measures ratios in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor, nn

import purpleteam as pt
from purpleteam.certify.bounds import ball, interval_margins, intervals, lower_bound, margins
from purpleteam.certify.cascade import certify_ball
from purpleteam.certify.folding import folded
from purpleteam.certify.network import Network, network_of
from purpleteam.core.machine import machine, versions
from purpleteam.core.statistics import mean
from purpleteam.data.drawing import CASES, redraw
from purpleteam.data.folders import load_dataset
from purpleteam.data.images import ImageSet
from purpleteam.models import build
from purpleteam.models.devices import to_batch
from purpleteam.models.loading import load
from purpleteam.models.recipes import AUGMENTATIONS, generator
from purpleteam.pipeline.stages.models import placed

RESULTS = Path(__file__).resolve().parent.parent / "results" / "certified.json"
QUICK = "ibp:batch_size=128,learning_rate=2e-3,schedule=one_cycle,epochs=25"
NET = "certified_cnn_bn"
ROWS: dict[str, dict[str, Any]] = {
    "certified-0.1-ibp": {"recipe": QUICK, "epsilon": 0.1, "arch": NET},
    "certified-0.1": {
        "recipe": QUICK.replace("ibp:", "mtl_ibp:bound_share=0.05,"),
        "epsilon": 0.1,
        "arch": NET,
    },
    "certified-0.3": {"recipe": f"{QUICK},ramp=true", "epsilon": 0.3, "arch": NET},
    "certified-0.3-plain": {"recipe": QUICK, "epsilon": 0.3, "arch": NET},
    "robust-0.3": {
        "recipe": "pgd:ramp=true,steps=3,epochs=36,batch_size=128,learning_rate=3e-3,"
        "schedule=one_cycle,averaging=ema,validation_images=500",
        "epsilon": 0.3,
        "arch": NET,
        "attack": ("box", "autoattack"),
    },
    "robust-0.3-longer": {
        "recipe": "pgd:ramp=true,augmentation=shift,steps=3,epochs=80,batch_size=128,"
        "learning_rate=3e-3,schedule=one_cycle,averaging=ema,validation_images=1000",
        "epsilon": 0.3,
        "arch": NET,
        "attack": ("box", "autoattack"),
    },
    "standard": {"recipe": "standard", "arch": "wide_residual_cnn"},
    "small-0.1": {"recipe": QUICK.replace("25", "70"), "epsilon": 0.1, "arch": "small_cnn"},
}
"""The frozen recipe of each row."""
METHOD = "alpha_crown"
LARGE = "cnn7"
BATCH = 64  # images: what the cascade takes at a time for IBP on this net; for CROWN-IBP a quarter


def main() -> None:
    """Do what is asked, and keep the other parts of the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("row", "second"):
        command = commands.add_parser(name)
        command.add_argument("row", choices=ROWS)
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--work", type=Path, default=Path("runs/certified"))
        command.add_argument("--budget", type=float, help="minutes of training, by the clock")
        command.add_argument("--epochs", type=int)
        command.add_argument("--threads", type=int, default=2)
        command.add_argument("--limit", type=int, help="test images that are attacked, the first")
    command = commands.add_parser("speed")
    command.add_argument("--model", default="certified-0.1")
    command.add_argument("--epsilon", type=float, default=0.1)
    asked = parser.parse_args()
    does = {"row": row, "second": second, "speed": speed}
    told = does[asked.command](asked)
    # Read now: another row may have been written in the meantime.
    kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"rows": {}}
    if asked.command == "speed":
        kept["speed"] = told
    else:
        kept["rows"].setdefault(f"{asked.row}/{asked.seed}", {}).update(told)
        kept["summary"] = summary(kept["rows"])
    kept["machine"], kept["versions"] = machine(), versions()
    RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def row(asked: argparse.Namespace) -> dict[str, Any]:
    """Train, evaluate, certify and attack; return what the row says."""
    plan, stem = ROWS[asked.row], asked.work / f"{asked.row}-{asked.seed}"
    card_file = stem.with_name(f"{stem.name}.json")  # no suffix: the name has a dot
    started, here = (time.process_time(), time.perf_counter()), not card_file.exists()
    how = {key: plan[key] for key in ("recipe", "epsilon", "arch") if key in plan}
    how |= {key: getattr(asked, key) for key in ("seed", "budget", "epochs", "threads")}
    if here:
        (pt.harden if "epsilon" in plan else pt.train)("mnist", out=stem, **how)
    took = time.process_time() - started[0], time.perf_counter() - started[1]
    about: dict[str, Any] = {"model": str(stem), "split": "test"}
    found: Any
    if "epsilon" not in plan:
        found = pt.evaluate(images="mnist", **about)
    elif (attack := plan.get("attack")) is None:
        found = pt.certify("mnist", method=METHOD, epsilon=[plan["epsilon"]], **about)
    else:
        about |= {"epsilon": [plan["epsilon"]], "limit": asked.limit, "seed": asked.seed}
        found = pt.attack(images="mnist", attack=[*attack], **about)
    card = json.loads(card_file.read_text("utf-8"))
    keys = (
        "clean_accuracy",
        "certified_accuracy",
        "robust_accuracy",
        "soundness",
        "attacks",
        "counts",
        "stages",
        "arithmetic",
        "without_ramp",
    )
    return {
        "row": asked.row,
        "seed": asked.seed,
        "plan": plan,
        "model": card["digest"],
        "recipe": card["recipe"],
        "training_cpu_seconds": round(took[0], 1) if here else None,  # of one process, whole
        "training_seconds": round(took[1], 1) if here else None,
        **{key: found.values[key] for key in keys if key in found.values},
        "chosen_on": "validation: the last 5,000 training images",
    }


def second(asked: argparse.Namespace) -> dict[str, Any]:
    """Certify on test digits that were redrawn, as the app reads them, and by another hand.

    By cheap bounds: of digits of another hand, dear ones are asked of most and prove few.
    """
    plan, stem = ROWS[asked.row], asked.work / f"{asked.row}-{asked.seed}"
    test = load_dataset("mnist").test
    large = next(case for case in CASES if case.offset)
    offsets = large.offsets(len(test), seed=0)
    canvases = (
        redraw(digit, size=large.size, offset_x=int(x), offset_y=int(y))
        for digit, (x, y) in zip(test.images[..., 0], offsets, strict=True)
    )
    freehand = AUGMENTATIONS["freehand"](to_batch(test.images), generator("second", 0))
    sets = {
        "redrawn on a canvas, placed by the app": np.stack([placed(one) for one in canvases])[
            ..., None
        ],
        "turned, sheared, moved, of another pen": (
            (freehand * 255).round().byte().permute(0, 2, 3, 1).numpy()
        ),
    }
    module, told = load(str(stem)).module, {}
    for name, images in sets.items():
        moved = ImageSet(images, test.labels)
        found = certify_ball(module, moved, epsilon=plan["epsilon"], method="crown_ibp")
        rates = {key: getattr(found, f"{key}_accuracy") for key in ("clean", "certified")}
        told[name] = {f"{key}_accuracy": rate.to_json() for key, rate in rates.items()}
    return {"second_sets": told, "second_sets_method": "crown_ibp"}


def summary(rows: dict[str, Any]) -> dict[str, Any]:
    """Return mean and t interval over seeds of each row."""
    told: dict[str, Any] = {}
    for name in ROWS:
        mine = [one for one in rows.values() if one.get("row") == name]
        names = ("clean_accuracy", "certified_accuracy", "robust_accuracy")
        for key in names if len(mine) > 1 else ():
            if key not in mine[0]:
                continue
            values = [one[key]["value"] for one in mine]
            told.setdefault(name, {})[key] = mean(values, bounds=(0, 1)).to_json()
    return told


def speed(asked: argparse.Namespace) -> dict[str, Any]:
    """Return processor milliseconds of 500 images, ratios, and what 10,000 images take.

    A forward pass is in the same batches.
    """
    model, epsilon = asked.model, asked.epsilon
    torch.set_num_threads(1)
    test = load_dataset("mnist").test
    module = load(model).module.eval()
    network = folded(network_of(module, (1, 28, 28)).to(torch.float32))
    x, y = to_batch(test.images[:500]), torch.from_numpy(test.labels[:500].astype("int64"))
    large = build(LARGE, (1, 28, 28), 10, seed=0).eval()  # what products take hangs on no weight

    def crown_ibp() -> None:
        for images, labels in zip(x.split(BATCH // 4), y.split(BATCH // 4), strict=True):
            boxes = intervals(network, ball(images, epsilon))
            lower_bound(network, boxes, margins(labels, network.classes))

    def cascade() -> None:
        certify_ball(module, test.first(500), epsilon=epsilon, method="crown")

    with torch.no_grad():
        works = passes(module, network, x, y, epsilon, BATCH) | {"crown_ibp": crown_ibp}
        cost = in_turn(works, 15)
        cost["cascade"] = least(cascade, 2)
        graph = folded(network_of(large, (1, 28, 28)).to(torch.float32))
        of_large = in_turn(passes(large, graph, x[:32], y[:32], epsilon, BATCH // 8), 7)
    whole = {}
    for method in ("ibp", "crown_ibp", METHOD):
        tries = []
        for _ in range(3):
            started, clock = time.process_time(), time.perf_counter()
            certify_ball(module, test, epsilon=epsilon, method=method)
            took = time.process_time() - started, time.perf_counter() - clock
            tries.append([round(seconds, 2) for seconds in took])
        whole[method] = dict(zip(("cpu_seconds", "seconds"), min(tries), strict=True))
    return {
        "model": model,
        "epsilon": epsilon,
        "batch": BATCH,
        "milliseconds": {name: round(1000 * value, 2) for name, value in cost.items()},
        "ratios": {
            **over_forward(cost),
            **{f"{name}, {LARGE}": value for name, value in over_forward(of_large).items()},
            "crown_ibp over ibp": round(cost["crown_ibp"] / cost["ibp"], 1),
            "cascade over ibp": round(cost["cascade"] / cost["ibp"], 1),
        },
        "images_10000": whole,
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }


def passes(
    module: nn.Module, network: Network, x: Tensor, y: Tensor, epsilon: float, batch: int
) -> dict[str, Callable[[], None]]:
    """Return forward passes of a net and of its graph, and IBP, of images in batches."""
    parts = list(zip(x.split(batch), y.split(batch), strict=True))

    def of_module() -> None:
        for images, _ in parts:
            module(images)

    def of_network() -> None:
        for images, _ in parts:
            network(images)

    def ibp() -> None:
        for images, labels in parts:
            interval_margins(network, ball(images, epsilon), labels)

    return {"of_module": of_module, "of_network": of_network, "ibp": ibp}


def over_forward(cost: dict[str, float]) -> dict[str, float]:
    """Return what IBP takes over two passes of the model, and of its graph with norms folded."""
    return {
        "ibp over two forward passes": round(cost["ibp"] / cost["of_module"] / 2, 2),
        "ibp over two of its folded graph": round(cost["ibp"] / cost["of_network"] / 2, 2),
    }


def in_turn(works: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Return the fewest processor seconds of each, in turn: a busy machine is busy for all."""
    tries = [{name: least(work, 1) for name, work in works.items()} for _ in range(repeats)]
    return {name: min(one[name] for one in tries) for name in works}


def least(work: Callable[[], None], repeats: int = 7) -> float:
    """Return the fewest processor seconds of several tries."""
    took = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        took.append(time.process_time() - started)
    return min(took)


if __name__ == "__main__":
    main()
