"""What Deep Partition Aggregation certifies on MNIST, and whether it holds when it is tried.

    python benchmarks/partition.py          writes results/partition.json

The certificate is computed for all test images, with the layer in closed form and with the tiny
networks. Then poisons are really put into the training
set, stamped images with the adversary's label, and everything is trained again: no certified
answer may change, with the trigger on the test image or without it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: waiting threads must not spin
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from purpleteam.attacks.poison.badnets import BadNets
from purpleteam.attacks.poison.triggers import Trigger
from purpleteam.certify.dpa import PartitionCertificate, certify_partitions
from purpleteam.certify.learners import seeded
from purpleteam.core.machine import machine, versions
from purpleteam.core.statistics import Rate
from purpleteam.data.folders import load_dataset
from purpleteam.data.images import Dataset, ImageSet

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "partition.json"
CHANGES = (0, 10, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000)
POISONS = 500
TARGET = 7
SEED = 300


def main() -> None:
    """Certify, attack, and write both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument(
        "--split", default="test", help="validation is for choices, test for the end"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    dataset = load_dataset(asked.dataset)
    images = dataset.split(asked.split)
    found = certify_partitions(dataset.train, images, classes=len(dataset.classes))
    drawn = seeded("networks", SEED)
    networks = certify_partitions(
        dataset.train, images, classes=len(dataset.classes), learner=drawn
    )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    content = {
        "command": "python benchmarks/partition.py",
        "what": "certified accuracy against insertions and removals; processor seconds",
        "dataset": {"name": asked.dataset, "split": asked.split, "digest": images.digest},
        "training_set": {"images": len(dataset.train), "digest": dataset.train.digest},
        "certificate": found.to_json(CHANGES) | {"megabytes": memory},
        "networks": networks.to_json(CHANGES),
        "attack": tried(dataset, images, found),
        "machine": machine(),
        "versions": versions(),
    }
    text = json.dumps(content, indent=1, sort_keys=True)
    asked.out.write_text(text + "\n", encoding="utf-8")
    print(text)


def tried(dataset: Dataset, images: ImageSet, found: PartitionCertificate) -> dict[str, Any]:
    """Return what so many inserted poisons do to the vote."""
    attack = BadNets(trigger=Trigger(size=3), count=POISONS, target_label=TARGET)
    poisoned = attack.apply(dataset.train, seed=SEED)
    poisons = poisoned.images.take(poisoned.indices)
    train = ImageSet(
        np.concatenate([dataset.train.images, poisons.images]),
        np.concatenate([dataset.train.labels, poisons.labels]),
    )
    stamped = ImageSet(attack.triggered(images.images), images.labels)
    classes = len(dataset.classes)
    both = ImageSet(
        np.concatenate([images.images, stamped.images]),
        np.concatenate([images.labels, stamped.labels]),
    )
    clean_on_stamped = certify_partitions(dataset.train, stamped, classes=classes)
    after = certify_partitions(train, both, classes=classes).answer
    plain, triggered = after[: len(images)], after[len(images) :]
    certified = found.radius >= POISONS
    still = clean_on_stamped.radius >= POISONS
    others = images.labels != TARGET
    return {
        "attack": attack.describe(images.images.shape[3]),
        "inserted": POISONS,
        "clean_accuracy": rate(plain == images.labels),
        "attack_success_rate": rate(triggered[others] == TARGET),
        "base_rate": rate(clean_on_stamped.answer[others] == TARGET),
        "triggered_certified_accuracy": clean_on_stamped.certified_accuracy(POISONS).to_json(),
        "certified_answers": int(certified.sum() + still.sum()),
        "certified_answers_changed": int(
            (plain != found.answer)[certified].sum()
            + (triggered != clean_on_stamped.answer)[still].sum()
        ),
    }


def rate(verdicts: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, Any]:
    """Return the fraction that is true, in JSON form."""
    return Rate.of(int(verdicts.sum()), len(verdicts)).to_json()


if __name__ == "__main__":
    main()
