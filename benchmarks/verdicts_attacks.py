"""The sections `ladder` and `loops` of results/verdicts.json: what our attacks are worth.

`ladder` sets the short ladder beside AutoAttack, on four models of three kinds of data and in three
norms, image by image, with what each cost. `loops` sets FGSM and PGD beside the loop that a paper
would write: the model as it is, float32, no batching, no dropping. It holds for the kernels that it
ran on; with `ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=AVX2` it runs on those of a processor
without bfloat16 units, and what was there for others stays.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.attacks import FGSM, PGD, evaluate
from purpleteam.attacks.evasion import ATTACKS
from purpleteam.attacks.norms import Noise, uniform_start
from purpleteam.core.statistics import Rate, paired_difference
from purpleteam.data.folders import load_dataset
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.defences import DEFENCES, Hardening
from purpleteam.models import RECIPES, build, load, train
from purpleteam.models.devices import to_batch

__all__ = ["ladder", "loops"]

IMAGES = 100
"""Test images of each model, at even distances."""
LOOPED = 300
"""The same where FGSM and PGD are set beside a bare loop."""
SEED = 0

Cell = tuple[str, str, float]
CELLS: tuple[Cell, ...] = (
    ("digits, hardened", "linf", 0.1),
    ("digits, hardened", "l2", 1.5),
    ("digits, hardened", "l1", 10.0),
    ("colours", "linf", 0.06),
    ("colours", "l2", 1.0),
    ("colours", "l1", 10.0),
    ("standard", "l2", 1.0),
    ("standard", "linf", 0.05),
    ("standard", "l1", 5.0),
    ("robust-0.3", "l2", 2.0),
    ("robust-0.3", "linf", 0.3),
    ("robust-0.3", "l1", 10.0),
)
"""A model, a norm, and a radius at which it reads some images still rightly."""


def ladder(work: Path, most: int, part: int = 0, parts: int = 1) -> dict[str, Any]:
    """Measure what is not measured yet, so many cells at most; return the section."""
    journal = work / "ladder.jsonl"
    done = {tuple(one["cell"]): one for one in _lines(journal)}
    for cell in [one for one in CELLS[part::parts] if one not in done][:most]:
        done[cell] = compared(cell)
        with journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(done[cell]) + "\n")
    rows = [done[cell] for cell in CELLS if cell in done]
    short = [one["ladder"]["calls"] for one in rows]
    whole = [one["autoattack"]["calls"] for one in rows]
    gaps = [one["difference"]["value"] for one in rows]
    return {
        "of": len(CELLS),
        "images": IMAGES,
        "rows": rows,
        "share_of_calls": sum(short) / max(sum(whole), 1),
        "largest_difference": max(gaps, default=None),
    }


def compared(cell: Cell) -> dict[str, Any]:
    """Return what the short ladder and AutoAttack leave of the same images, and their costs."""
    name, norm, epsilon = cell
    net, dataset = model_of(name)
    images = spread(dataset.test, IMAGES)
    parts: dict[str, Any] = {}
    stands = {}
    for attack in ("ladder", "autoattack"):
        started = time.process_time()
        made = ATTACKS[attack](norm=norm, epsilon=epsilon)
        found = evaluate(net, images, made, seed=SEED, fit_on=dataset.validation)
        stands[attack] = [bool(one) for one in found.robust]
        parts[attack] = {
            "survived": found.robust_accuracy.to_json(),
            "forward": found.cost["forward"],
            "backward": found.cost["backward"],
            "calls": found.cost["forward"] + found.cost["backward"],
            "cpu_seconds": round(time.process_time() - started, 2),
        }
        clean = found.clean_accuracy.to_json()
    difference = paired_difference(stands["autoattack"], stands["ladder"])
    pairs = list(zip(stands["ladder"], stands["autoattack"], strict=True))
    return {
        "cell": cell,
        "clean_accuracy": clean,
        **parts,
        "difference": difference.to_json(),
        "broken_by_ladder_alone": pairs.count((False, True)),
        "broken_by_autoattack_alone": pairs.count((True, False)),
    }


LOOP_CELLS: tuple[tuple[str, float], ...] = (
    ("digits, hardened", 0.1),
    ("colours", 0.06),
    ("standard", 0.05),
    ("robust-0.3", 0.3),
)
STEPS = 20


def loops(work: Path, most: int, part: int = 0, parts: int = 1) -> dict[str, Any]:
    """Return the section: which images our FGSM and PGD break and a bare loop does not."""
    rows = []
    for name, epsilon in LOOP_CELLS[part::parts][:most]:
        net, dataset = model_of(name)
        images = spread(dataset.test, LOOPED)
        start = PGD(epsilon=epsilon, steps=STEPS)
        for attack, loop in (
            (FGSM(epsilon=epsilon), _bare(net, images, epsilon, 1, epsilon)),
            (
                PGD(epsilon=epsilon, steps=STEPS, random_start=False),
                _bare(net, images, epsilon, STEPS, 2.5 * epsilon / STEPS),
            ),
            (
                start,
                _bare(net, images, epsilon, STEPS, 2.5 * epsilon / STEPS, random_start=True),
            ),
        ):
            found = evaluate(net, images, attack, seed=SEED)
            ours = ~found.robust
            rows.append(
                {
                    "model": name,
                    "attack": attack.name,
                    "epsilon": epsilon,
                    "steps": attack.planned_steps,
                    "random_start": getattr(attack, "random_start", None),
                    "ours": Rate.of(int(found.robust.sum()), len(images)).to_json(),
                    "bare_loop": Rate.of(int((~loop).sum()), len(images)).to_json(),
                    "broken_by_ours_alone": np.flatnonzero(ours & ~loop).tolist(),
                    "broken_by_the_loop_alone": np.flatnonzero(loop & ~ours).tolist(),
                }
            )
    kernels = torch.backends.cpu.get_cpu_capability().lower()
    journal = work / f"loops-{kernels}.json"
    journal.write_text(json.dumps(rows), encoding="utf-8")
    found = {
        path.stem.removeprefix("loops-"): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(work.glob("loops-*.json"))
    }
    differing = [
        one
        for made in found.values()
        for one in made
        if one["broken_by_ours_alone"] or one["broken_by_the_loop_alone"]
    ]
    return {"images": LOOPED, "kernels": found, "equal_image_by_image": not differing}


def _bare(
    net: nn.Module,
    images: ImageSet,
    epsilon: float,
    steps: int,
    step_size: float,
    *,
    random_start: bool = False,
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which images a plain loop breaks at any step, or had lost when clean, (N,)."""
    x, y = to_batch(images.images).contiguous(), torch.from_numpy(np.array(images.labels))
    x_adv = _start(x, epsilon) if random_start else x.clone()
    broken = net(x).argmax(1) != y
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_(True)
        scores = net(x_adv)
        broken |= scores.argmax(1) != y
        (slope,) = torch.autograd.grad(nn.functional.cross_entropy(scores, y), x_adv)
        x_adv = x_adv.detach() + step_size * slope.sign()
        x_adv = torch.minimum(torch.maximum(x_adv, x - epsilon), x + epsilon).clamp(0, 1)
    with torch.no_grad():
        broken |= net(x_adv).argmax(1) != y
    return broken.numpy()


def _start(x: Tensor, epsilon: float) -> Tensor:
    """Return the start that PGD draws: the same, so that the loops can be compared."""
    return uniform_start(x, epsilon, "linf", Noise(SEED, torch.arange(len(x))))


@cache
def model_of(name: str) -> tuple[nn.Module, Dataset]:
    """Return a shipped model with MNIST, or one that is trained here with its own images."""
    if name in MADE:
        return MADE[name]()
    return load(name).module, load_dataset("mnist")


def _hardened_digits() -> tuple[nn.Module, Dataset]:
    """Return a small net, adversarially trained on the embedded digits."""
    dataset = load_dataset("digits")
    recipe = DEFENCES["pgd"](epsilon=0.1, epochs=10, steps=3, validation_images=50)
    net = build("small_cnn", (1, 28, 28), 10, seed=SEED)
    return recipe.harden(Hardening(net=net, dataset=dataset)).module, dataset


def _coloured() -> tuple[nn.Module, Dataset]:
    """Return a net that reads which of four shapes was drawn in which of two colours."""
    dataset = colours()
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        net = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 36, 8),
        )
    return train(
        net, dataset.train, dataset.validation, RECIPES["plain"](epochs=6), seed=SEED
    ).module, dataset


MADE: Mapping[str, Callable[[], tuple[nn.Module, Dataset]]] = {
    "digits, hardened": _hardened_digits,
    "colours": _coloured,
}


def colours() -> Dataset:
    """Return drawn 24 x 24 images: a disc, a square, a cross or a ring, reddish or bluish."""
    rng = np.random.default_rng(SEED)
    count = 1500
    labels = rng.integers(0, 8, count)
    rows, columns = np.mgrid[:24, :24]
    middle, size = rng.uniform(9, 15, (count, 2, 1, 1)), rng.uniform(4, 7, (count, 1, 1))
    down, right = np.abs(rows - middle[:, 0]), np.abs(columns - middle[:, 1])
    away = np.hypot(down, right)
    forms = (
        away < size,
        np.maximum(down, right) < size,
        (np.minimum(down, right) < 1.5) & (np.maximum(down, right) < size),
        (away < size) & (away > size - 2),
    )
    shape = np.select([(labels % 4 == k)[:, None, None] for k in range(4)], forms)
    tint = np.where((labels < 4)[:, None], (200, 90, 60), (60, 90, 200))
    image = rng.normal(60, 20, (count, 24, 24, 3)) + shape[..., None] * tint[:, None, None]
    images = ImageSet(image.clip(0, 255).astype(np.uint8), labels.astype(np.int64))
    names = tuple(
        f"{tint} {form}" for tint in ("red", "blue") for form in ("disc", "square", "cross", "ring")
    )
    return Dataset(
        "colours", images.part(0, 1000), images.part(1000, 1200), images.part(1200), names
    )


def spread(images: ImageSet, count: int) -> ImageSet:
    """Return so many images at even distances: the first ones are no random sample."""
    return images.take(np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int))


def _lines(journal: Path) -> list[dict[str, Any]]:
    if not journal.exists():
        return []
    found = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    return [{**one, "cell": tuple(one["cell"])} for one in found]
