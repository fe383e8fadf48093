"""Copies of the zoo's model and images rebuilt from it, on MNIST; into results/privacy.json.

`python benchmarks/privacy_extraction.py extraction --seed 0` copies `standard` by each strategy, by
scores and by labels; `--only random:ink=0.2` by those that begin so. `inversion` rebuilds images
from `standard` and `robust-0.3` with each prior, judges them and draws docs/images/rebuilt.png.
Other parts of the file, and other seeds, are kept.

The models learned the first 55,000 training images. The adversary has the other 5,000, whose labels
are not looked at, and four copies of each, turned, scaled and redrawn by the augmentation
`freehand`: `standard` was chosen by them, not trained on them. The copy is another net than the
model, and learns from moved images, whatever they are asked about.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor

from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.core.arrays import Pixels, Singles
from purpleteam.core.machine import machine, versions
from purpleteam.core.statistics import Rate, mean_over_seeds
from purpleteam.data.folders import load_dataset
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.models import build
from purpleteam.models.black_box import Gives, as_bytes
from purpleteam.models.devices import frozen, to_batch
from purpleteam.models.inference import correct, logits
from purpleteam.models.loading import load
from purpleteam.models.recipes import AUGMENTATIONS, RECIPES, generator
from purpleteam.models.training import train
from purpleteam.privacy.extraction import Strategy
from purpleteam.privacy.extraction.active import Active
from purpleteam.privacy.extraction.extract import extract
from purpleteam.privacy.extraction.jacobian import Jacobian
from purpleteam.privacy.extraction.natural import Natural
from purpleteam.privacy.extraction.random import Random
from purpleteam.privacy.inversion import Inversion, Kind, Rebuilt
from purpleteam.privacy.inversion.gradient import Gradient
from purpleteam.privacy.inversion.judge import Judge, Judged
from purpleteam.privacy.inversion.score_based import ScoreBased
from purpleteam.report.png import write_png

ROOT = Path(__file__).resolve().parent.parent
RESULTS, SHEET = ROOT / "results" / "privacy.json", ROOT / "docs" / "images" / "rebuilt.png"
NET, SHAPE = "small_cnn", (1, 28, 28)
EPOCHS, STEPS = 15, 600  # of a copy's training: the larger counts
QUERIES = (100, 300, 1000, 3000, 10_000)
GIVES: tuple[Gives, ...] = ("scores", "labels")
STRATEGIES: dict[str, Strategy] = {
    "natural": Natural(),
    "active": Active(),
    "jacobian": Jacobian(),
    "random": Random(),
    "random:ink=0.2": Random(ink=0.2),
}
PUBLISHED = [
    {
        "what": "adversarial examples for a copy that fool the model",
        "value": 0.8424,
        "queries": 6400,
        "answers": "labels",
        "questions": "jacobian",
        "model": "a network of digits behind an API, MetaMind",
        "source": "Papernot et al. 2017, arXiv:1602.02697, abstract",
    }
]
"""As the papers state it; other models, so nothing to be beaten."""
COPIES = 4  # of each image of the adversary's own
ATTACK = PGD(epsilon=0.3, steps=10)
MODELS = ("standard", "robust-0.3")
PRIORS: tuple[Kind, ...] = ("none", "smooth", "images")
IMAGES, SEED = 60, 0  # rebuilt images of each attack: six of each class
JUDGE_LEARNS = 10_000


def main() -> None:
    """Do what is asked, and keep the other parts of the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("extraction")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--only", default="", help="strategies whose names begin so")
    commands.add_parser("inversion")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset("mnist")
    if asked.command == "extraction":
        extraction(data, asked.seed, asked.only)
    else:
        inversion(data)


def keep(part: str, rows: dict[str, Any], **facts: Any) -> None:
    """Add rows to a part of the file, read now: another process may have written meanwhile."""
    kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    section = kept.setdefault(part, {})
    section.setdefault("rows", {}).update(rows)
    section |= {**facts, "machine": machine(), "versions": versions()}
    if part == "extraction":
        section["summary"] = summary(section["rows"])
    RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def summary(rows: dict[str, Any]) -> dict[str, Any]:
    """Return for each strategy, kind of answers and number of questions the mean over seeds."""
    groups: dict[str, list[float]] = {}
    for row in rows.values():
        for point in row["points"]:
            key = f"{row['strategy']}/{row['answers']}/{point['queries']}"
            groups.setdefault(key, []).append(point["agreement"]["value"])
    return {
        key: mean_over_seeds(values, bounds=(0, 1)).to_json()
        for key, values in sorted(groups.items())
        if len(values) > 1
    }


def own_images(data: Dataset) -> ImageSet:
    """Return what the adversary has: the validation images, then `COPIES` drawn anew of each."""
    own = data.validation
    parts = [np.asarray(own.images)]
    for number in range(COPIES):
        rng = generator("images of the adversary", number)
        moved = AUGMENTATIONS["freehand"](to_batch(parts[0]), rng)
        parts.append(as_bytes(moved).transpose(0, 2, 3, 1).copy())
    return ImageSet(np.concatenate(parts), np.tile(own.labels, COPIES + 1))


def extraction(data: Dataset, seed: int, only: str) -> None:
    """Copy the zoo's model by each strategy, by scores and by labels."""
    target, pool = load("standard"), own_images(data)
    of_test = logits(target.module, data.test.images)

    def ask(pixels: Pixels) -> Singles:
        same = len(pixels) == len(of_test) and np.array_equal(pixels, data.test.images)
        return of_test if same else logits(target.module, pixels)

    about = {
        "model": target.digest,
        "model_name": "standard",
        "clean_accuracy": rate(correct(target.module, data.test)),
        "net": NET,
        "pool": {"images": len(pool), "digest": pool.digest, "real": len(data.validation)},
        "published": PUBLISHED,
        "attack": {"name": ATTACK.name, "epsilon": ATTACK.epsilon, "steps": ATTACK.steps},
    }
    for name, strategy in STRATEGIES.items():
        moved = "none" if isinstance(strategy, Random) else "freehand"
        recipe = RECIPES["plain"](epochs=EPOCHS, augmentation=moved)
        for answers in GIVES if name.startswith(only) else ():
            found = extract(
                ask,
                strategy,
                pool=pool,
                test=data.test,
                queries=QUERIES,
                answers=answers,
                net=lambda number: build(NET, SHAPE, 10, seed=number),
                recipe=recipe,
                least_steps=STEPS,
                attack=ATTACK,
                seed=seed,
            )
            told = {**found.to_json(), "strategy": f"extraction_{name}", "seed": seed}
            told["recipe"] = {"name": recipe.name, **asdict(recipe), "least_steps": STEPS}
            keep("extraction", {f"{name}/{answers}/{seed}": told}, **about)
            print(name, answers, [round(p.agreement.value, 4) for p in found.points], flush=True)


def rate(right: Any) -> dict[str, Any]:
    """Return how many are right, with the interval."""
    return Rate.of(int(right.sum()), len(right)).to_json()


def inversion(data: Dataset) -> None:
    """Rebuild images from two models with each prior, judge them, and beside them controls."""
    few = data.train.take(np.random.default_rng(SEED).permutation(len(data.train))[:JUDGE_LEARNS])
    net = build(NET, SHAPE, 10, seed=1000)
    by = train(net, few, data.validation, RECIPES["plain"](), seed=1000).module
    told = Judge(by=by, learned=data.train, others=data.test, seed=SEED)
    judge = {"net": NET, "learned": len(few), "clean_accuracy": rate(correct(by, data.test))}
    facts = {"judge": judge, "learned": len(data.train), "others": len(data.test)}
    classes, sheet = [n % 10 for n in range(IMAGES)], list[Pixels]()
    row: dict[str, Any]
    for name, made in controls(data).items():
        row = {"model_name": "control", "attack": name, "prior": "", **said(told(made), made)}
        keep("inversion", {f"control/{name}": row}, **facts)
        print(name, row["verdict"], flush=True)
    for model in MODELS:
        target = load(model)
        for prior in PRIORS:
            attacks: tuple[Inversion, ...] = (Gradient(prior=prior), ScoreBased(prior=prior))
            for attack in attacks:
                started = time.process_time()
                with frozen(target.module) as asked:
                    made = attack.rebuild(in_parts(asked), classes, pool=data.validation, seed=SEED)
                judged = told(made)
                row = {"model": target.digest, "model_name": model, "attack": attack.name}
                row |= {"prior": prior, **said(judged, made)}
                row["cpu_seconds"] = round(time.process_time() - started, 1)
                keep("inversion", {f"{model}/{attack.name}/{prior}": row}, **facts)
                print(model, attack.name, prior, judged.verdict, judged.recognised, flush=True)
                if isinstance(attack, Gradient):
                    sheet += shown(made, judged, data.train, last=prior == PRIORS[-1])
    write_png(SHEET, np.concatenate(sheet))


def said(judged: Judged, made: Rebuilt) -> dict[str, Any]:
    """Return what the judge says, and how much was asked for it."""
    return {"queries": made.queries, "images": len(made.images), **judged.to_json()}


def controls(data: Dataset) -> dict[str, Rebuilt]:
    """Return what must be called a leak, and what must not."""
    stored, means, rng = list[Pixels](), list[Pixels](), np.random.default_rng(SEED)
    for number in range(IMAGES):
        of_class = data.train.images[data.train.labels == number % 10]
        image = to_batch(of_class[50 + number // 10][None])
        noise = torch.from_numpy(rng.normal(0, 0.05, image.shape)).float()
        blurred = torch.nn.functional.avg_pool2d(image, 3, 1, 1) + noise
        stored.append(as_bytes(blurred)[0].transpose(1, 2, 0))
        mean = of_class.mean(0) + rng.normal(0, 1, of_class.shape[1:])
        means.append(mean.clip(0, 255).astype(np.uint8))
    made = {"training images, blurred and noisy": stored, "class means": means}
    labels = np.arange(IMAGES) % 10
    return {name: Rebuilt(ImageSet(np.stack(one), labels), 0) for name, one in made.items()}


def in_parts(net: Callable[[Tensor], Tensor], size: int = 200) -> Callable[[Tensor], Tensor]:
    """Return a model that is asked about few images at a time, as the processor likes it."""
    return lambda x: torch.cat([net(x[at : at + size]) for at in range(0, len(x), size)])


def shown(made: Rebuilt, judged: Judged, learned: ImageSet, *, last: bool) -> list[Pixels]:
    """Return a line of rebuilt images; under the last the nearest training images, and means."""
    lines = [np.concatenate([np.asarray(image)[..., 0] for image in made.images.images[:10]], 1)]
    if last:
        nearest = [np.asarray(learned.images[place])[..., 0] for place in judged.nearest[:10]]
        means = [learned.images[learned.labels == n].mean(0)[..., 0] for n in range(10)]
        lines.append(np.concatenate(nearest, 1))
        lines.append(np.concatenate(means, 1).round().astype(np.uint8))
    return [np.pad(line, ((0, 4), (0, 0)), constant_values=255) for line in lines]


if __name__ == "__main__":
    main()
