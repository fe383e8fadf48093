"""Which training images models of MNIST give away; into results/privacy.json.

`python benchmarks/privacy_membership.py usual` trains a model on a random half of a pool of
training images, so that members and others are of one kind, and attacks it with 8 shadow models.
`--peers PYTHON` lets ART's attacks judge the same model in the same run, by a Python that has
adversarial-robustness-toolbox. Other parts of the file, and other rows, are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn

from purpleteam.core.machine import machine, versions
from purpleteam.core.statistics import mean_over_seeds
from purpleteam.data.folders import load_dataset
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.models import build
from purpleteam.models.inference import correct, logits
from purpleteam.models.recipes import RECIPES, Recipe
from purpleteam.models.training import train
from purpleteam.privacy.membership import MEMBERSHIP, Evidence
from purpleteam.privacy.membership.measure import measure
from purpleteam.privacy.roc import Roc
from purpleteam.privacy.shadows import halves, train_shadows

RESULTS = Path(__file__).resolve().parent.parent / "results" / "privacy.json"
NET, SHADOWS = "small_cnn", 8
ROWS: dict[str, dict[str, Any]] = {
    "usual": {"pool": 20_000, "recipe": RECIPES["plain"](epochs=10), "noise": 0.0},
    "memorised": {
        "pool": 4000,
        "recipe": RECIPES["plain"](epochs=60),
        "noise": 0.2,
        "best_on_learned": True,
    },
    "regularised": {
        "pool": 20_000,
        "recipe": RECIPES["plain"](epochs=10, weight_decay=0.5, augmentation="shift"),
        "noise": 0.0,
    },
}
"""Of each row: images of the pool, half of which the model learns; how; which share of their labels
is drawn at random, so that they can only be memorised; and whether the epoch that is kept is the
best on what was learned, not on validation images."""
KEPT_AS = {  # answers that an app gives instead of scores
    "scores": lambda scores: scores,
    "two decimals": lambda scores: np.log(np.maximum(_softmax(scores).round(2), 1e-9)),
    "labels": lambda scores: 9 * np.eye(scores.shape[1], dtype=np.float32)[scores.argmax(1)],
}


def main() -> None:
    """Do what is asked, and keep the other parts of the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peers", type=Path, help="a Python that has ART")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    told = membership(load_dataset("mnist"), asked)
    kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    part = kept.setdefault("membership", {"rows": {}})
    part["rows"][f"{asked.row}/{asked.seed}"] = told
    part |= {"machine": machine(), "versions": versions(), "summary": summary(part["rows"])}
    RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def learned(
    images: ImageSet, seed: int, recipe: Recipe, validation: ImageSet | None = None
) -> nn.Module:
    """Return a new net, trained on the images, best on them where there are no others."""
    net = build(NET, (1, 28, 28), 10, seed=seed)
    return train(net, images, validation or images, recipe, seed=seed).module


def membership(data: Dataset, asked: argparse.Namespace) -> dict[str, Any]:
    """Attack one model, and tell what each answer of an app would have left of it."""
    plan, seed = ROWS[asked.row], asked.seed
    rng = np.random.default_rng([seed, 11])
    pool = data.train.take(np.sort(rng.permutation(len(data.train))[: plan["pool"]]))
    labels, drawn = pool.labels.copy(), rng.random(len(pool)) < plan["noise"]
    labels[drawn] = rng.integers(0, 10, int(drawn.sum()))
    pool = ImageSet(np.array(pool.images), labels)
    member = halves(len(pool), 2, seed + 1000)[0]
    validation = None if plan.get("best_on_learned") else data.validation
    one = partial(learned, recipe=plan["recipe"], validation=validation)
    target = one(pool.take(np.flatnonzero(member)), seed + 500)
    started = time.process_time()
    shadows = train_shadows(pool, one, count=SHADOWS, seed=seed)
    took = time.process_time() - started
    told: dict[str, Any] = {}
    for answers, shown in KEPT_AS.items():
        ask = lambda pixels, shown=shown: shown(logits(target, pixels)).astype(np.float32)  # noqa: E731
        evidence = Evidence(
            images=pool, ask=ask, shadows=shadows.scores, inside=shadows.inside, seed=seed
        )
        wanted = MEMBERSHIP if answers == "scores" else ("loss", "rmia", "label_only")
        attacks = [MEMBERSHIP[name]() for name in wanted]
        told[answers] = [_numbers(row.to_json()) for row in measure(evidence, member, attacks)]
    right = correct(target, data.test)
    scores = logits(target, pool.images)
    return {
        "row": asked.row,
        "seed": seed,
        "net": NET,
        "recipe": {"name": plan["recipe"].name, **vars(plan["recipe"])},
        "pool": len(pool),
        "labels_drawn": plan["noise"],
        "clean_accuracy": _rate(right),
        "learned_accuracy": _rate((scores.argmax(1) == labels)[member]),
        "shadows": SHADOWS,
        "shadow_cpu_seconds": round(took, 1),
        "answers": told,
        **({"peers": peers(asked.peers, scores, labels, member)} if asked.peers else {}),
    }


def _numbers(told: dict[str, Any]) -> dict[str, Any]:
    """Return what an attack found without its curve, which no table shows."""
    return {name: value for name, value in told.items() if name != "curve"}


def _rate(right: Any) -> dict[str, Any]:
    from purpleteam.core.statistics import Rate

    return Rate.of(int(right.sum()), len(right)).to_json()


def _softmax(scores: np.ndarray) -> np.ndarray:
    from scipy.special import softmax

    return np.asarray(softmax(scores, axis=1))


PEER = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
from art.attacks.inference.membership_inference import MembershipInferenceBlackBox
from art.attacks.inference.membership_inference import MembershipInferenceBlackBoxRuleBased
from art.estimators.classification import BlackBoxClassifierNeuralNetwork
kept = np.load(sys.argv[1])
scores, labels, member, half = (kept[name] for name in ("scores", "labels", "member", "half"))
chances = np.exp(scores - scores.max(1, keepdims=True))
chances = (chances / chances.sum(1, keepdims=True)).astype(np.float32)
model = BlackBoxClassifierNeuralNetwork(
    lambda x: chances[x[:, 0].astype(int)], (1,), chances.shape[1], channels_first=True
)
rows = np.arange(len(labels), dtype=np.float32)[:, None]
found = {}
for kind in ("rule", "rf", "gb", "lr"):
    begun = time.process_time()
    if kind == "rule":
        attack = MembershipInferenceBlackBoxRuleBased(model)
        told = attack.infer(rows, labels).reshape(-1)
    else:
        attack = MembershipInferenceBlackBox(model, attack_model_type=kind)
        attack.fit(rows[half & member], labels[half & member],
                   rows[half & ~member], labels[half & ~member])
        told = attack.infer(rows, labels, probabilities=True)
        told = told.reshape(len(rows), -1)[:, -1]
    took = time.process_time() - begun
    found[kind] = {"scores": told.astype(float).tolist(), "cpu_seconds": took}
print(json.dumps(found))
"""


def peers(
    python: Path, scores: np.ndarray, labels: np.ndarray, member: np.ndarray
) -> dict[str, Any]:
    """Return what ART's attacks find of the model: told the truth of a half, judged on the rest."""
    half = np.random.default_rng(0).random(len(labels)) < 0.5
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.npz"
        np.savez(path, scores=scores, labels=labels, member=member, half=half)
        done = subprocess.run(
            [str(python), "-c", PEER, str(path)], capture_output=True, text=True, check=True
        )
    told: dict[str, Any] = {}
    for kind, found in json.loads(done.stdout.splitlines()[-1]).items():
        roc = Roc.of(np.array(found["scores"])[~half], member[~half])
        told[f"art:{kind}"] = _numbers(roc.to_json())
        told[f"art:{kind}"]["cpu_seconds"] = round(found["cpu_seconds"], 2)
    return told


def summary(rows: dict[str, Any]) -> dict[str, Any]:
    """Return means over seeds, each with its t interval."""
    groups: dict[str, list[float]] = {}
    for row in rows.values():
        for answers, attacks in row["answers"].items():
            for attack in attacks:
                for rate, found in attack["tpr_at"].items():
                    if found:
                        key = f"{row['row']}/{answers}/{attack['attack']}/{rate}"
                        groups.setdefault(key, []).append(found["value"])
    return {
        key: mean_over_seeds(values, bounds=(0, 1)).to_json()
        for key, values in sorted(groups.items())
        if len(values) > 1
    }


if __name__ == "__main__":
    main()
