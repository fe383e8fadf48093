"""What clean nets give the model scan's detectors: what results/calibration.json is made of.

    python benchmarks/scan_calibration.py --work FOLDER

Clean nets of several architectures, recipes and kinds of images are scanned by every detector,
once each, with random numbers that no other measurement uses. The null law of a detector must cover
what these nets give. What is there is never done again; `--part I/N` does a part of the nets.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: waiting threads must not spin
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from verdicts_attacks import colours

from purpleteam.core.machine import machine, versions
from purpleteam.core.statistics import Rate
from purpleteam.data.folders import load_dataset
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.defences.detection.model import scan_model
from purpleteam.models import RECIPES, build, train

RESULTS = Path(__file__).resolve().parent.parent / "results" / "calibration.json"
FIRST_SEED = 7000
"""Of the nets and the scans; the lab and the shipped models are scanned with small numbers."""


def mnist() -> Dataset:
    """Return MNIST, a fifth of its training images."""
    whole = load_dataset("mnist")
    return Dataset("mnist", whole.train.first(11_000), whole.validation, whole.test, whole.classes)


def tinted(classes: int) -> Dataset:
    """Return so many classes of MNIST, each image in a random colour on a random dark one."""
    rng, whole = np.random.default_rng(classes), mnist()

    def part(images: ImageSet) -> ImageSet:
        kept = images.take(np.flatnonzero(images.labels < classes))
        light, dark = rng.uniform(128, 255, (len(kept), 3)), rng.uniform(0, 80, (len(kept), 3))
        ink = kept.images.reshape(len(kept), 28, 28, 1) / 255.0
        mixed = ink * light[:, None, None] + (1 - ink) * dark[:, None, None]
        return ImageSet(mixed.astype(np.uint8), kept.labels)

    parts = [part(one) for one in (whole.train, whole.validation, whole.test)]
    return Dataset(f"tinted-{classes}", *parts, whole.classes[:classes])


KINDS: dict[str, Callable[[], Dataset]] = {
    "mnist": mnist,
    "digits": lambda: load_dataset("digits"),
    "tinted-5": lambda: tinted(5),
    "tinted-7": lambda: tinted(7),
    "colours": colours,
}
NETS: tuple[tuple[str, str, str, int], ...] = (
    *((kind, "classic_cnn", "plain", 3) for kind in ("mnist", "digits", "tinted-7")),
    *(("mnist", "small_cnn", "plain", epochs) for epochs in (2, 6)),
    *(("digits", "small_cnn", "plain", epochs) for epochs in (8, 40)),
    *(("mnist", "classic_cnn", "plain", epochs) for epochs in (1, 6, 3, 3, 3)),
    *(("digits", "classic_cnn", "plain", epochs) for epochs in (10, 30, 20)),
    *(("mnist", name, "accurate", 4) for name in ("classic_cnn", "small_cnn")),
    *(("digits", name, "accurate", 20) for name in ("classic_cnn", "small_cnn")),
    *((f"tinted-{k}", "small_cnn", "plain", 4) for k in (5, 7)),
    *((f"tinted-{k}", "classic_cnn", "accurate", 3) for k in (5, 7)),
    *(("colours", name, "plain", 12) for name in ("small_cnn", "small_cnn", "classic_cnn")),
    ("mnist", "seed_cnn", "plain", 2),
    ("digits", "seed_cnn", "plain", 15),
    *(("mnist", "classic_cnn", "plain", epochs) for epochs in (2, 4, 8, 10)),
    *(("mnist", "small_cnn", "plain", epochs) for epochs in (4, 10)),
    *(("digits", "classic_cnn", "plain", epochs) for epochs in (15, 40)),
    *(("digits", "small_cnn", "plain", epochs) for epochs in (20, 60)),
    ("tinted-5", "classic_cnn", "plain", 3),
    ("tinted-7", "small_cnn", "accurate", 4),
    ("colours", "small_cnn", "plain", 20),
    ("colours", "classic_cnn", "plain", 20),
    ("colours", "small_cnn", "accurate", 12),
    ("mnist", "seed_cnn", "plain", 4),
    ("digits", "seed_cnn", "plain", 30),
    ("tinted-7", "seed_cnn", "plain", 4),
)
"""Kind of images, architecture, recipe, epochs; the place in the list is the seed."""


def scanned(number: int) -> dict[str, Any]:
    """Train one clean net and return what every detector says of it."""
    kind, architecture, recipe, epochs = NETS[number]
    dataset, seed = KINDS[kind](), FIRST_SEED + number
    shape = dataset.train.images.shape
    net = build(architecture, (shape[3], *shape[1:3]), len(dataset.classes), seed=seed)
    made = train(net, dataset.train, dataset.validation, RECIPES[recipe](epochs=epochs), seed=seed)
    started, trusted = time.process_time(), dataset.validation.first(1000)
    found = scan_model(made.module, trusted, classes=len(dataset.classes), seed=seed)
    return {
        "net": NETS[number],
        "seed": seed,
        "trusted": len(trusted),
        "verdict": found.verdict,
        "reasons": found.reasons,
        "looks": found.looks,
        "set_aside": found.set_aside,
        "kind": found.kind,
        "standings": {one.detector: one.standing for one in found.evidence},
        "cpu_seconds": time.process_time() - started,
    }


def main() -> None:
    """Scan what is not scanned yet; write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="Folder of what was begun.")
    parser.add_argument("--part", default="0/1", help="Part of the nets, such as 1/4.")
    given = parser.parse_args()
    part, parts = map(int, given.part.split("/"))
    given.work.mkdir(parents=True, exist_ok=True)
    for number in range(len(NETS))[part::parts]:
        path = given.work / f"clean-{number}.json"
        if not path.exists():
            found = scanned(number)
            path.write_text(json.dumps(found), encoding="utf-8")
            print(number, found["net"], found["verdict"], found["standings"], flush=True)
    paths = [given.work / f"clean-{number}.json" for number in range(len(NETS))]
    nets = [json.loads(one.read_text(encoding="utf-8")) for one in paths if one.exists()]
    accused = Rate.of(sum(one["verdict"] == "backdoored" for one in nets), len(nets))
    content = {
        "of": len(NETS),
        "nets": nets,
        "accused": accused.to_json(),
        "machine": machine(),
        "versions": versions(),
    }
    RESULTS.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
