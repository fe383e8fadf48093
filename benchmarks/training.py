"""What the training loop costs over the work that nobody can leave out.

    python benchmarks/training.py       writes results/training.json

One epoch of 60,000 images of MNIST's shape, batch 64, on one thread, in three ways:

    purpleteam  models.training.train, recipe plain, as users call it, but for the validation
    bare        forward, backward and step over ready-made batches: same net, precision, optimiser
    seeds       a DataLoader over a TensorDataset in float32, as in both course reports

The ways take turns, so that a busy machine hits all of them; the cost is processor time, and
the least of the repetitions counts. Real images are used where PURPLETEAM_DATA has them.
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
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from purpleteam.core.errors import DataError
from purpleteam.core.machine import machine, versions
from purpleteam.data.images import ImageSet
from purpleteam.data.sources.mnist import find_mnist, load_mnist
from purpleteam.models.architectures import ARCHITECTURES, initialise
from purpleteam.models.devices import fast_autocast, has_fast_bf16
from purpleteam.models.recipes import Plain
from purpleteam.models.training import Validation, train

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "training.json"
ARCHITECTURE = "classic_cnn"
BATCH = 64
CPU = torch.device("cpu")


def new_net() -> nn.Module:
    """Return the net that all ways train, with the same starting weights."""
    return initialise(ARCHITECTURES[ARCHITECTURE], (1, 28, 28), 10, 0)


def unscored(_: nn.Module) -> Validation:
    """Leave the score of an epoch out."""
    return Validation(validation_accuracy=0.0)


def purpleteam_way(images: ImageSet) -> None:
    """Train one epoch as the product does; the score of the epoch is left out."""
    recipe = Plain(epochs=1, batch_size=BATCH)
    train(new_net(), images, images.first(1), recipe, seed=0, validate=unscored)


def bare_way(batches: list[tuple[Tensor, Tensor]]) -> None:
    """Forward, backward and step, and nothing else."""
    net = new_net().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.0, fused=True)
    for x, y in batches:
        with fast_autocast(CPU):
            loss = F.cross_entropy(net(x).float(), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def seeds_way(images: TensorDataset) -> None:
    """Train one epoch as tutorials and both course reports do."""
    net = new_net().train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for x, y in DataLoader(images, batch_size=BATCH, shuffle=True):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()


def images_of(count: int) -> tuple[ImageSet, str]:
    """Return MNIST's training file where it is at hand, else noise of the same shape."""
    try:
        folder = find_mnist()
    except DataError:
        folder = None
    if folder is not None:
        mnist = load_mnist(folder)
        both = (mnist.train, mnist.validation)
        pixels = np.concatenate([one.images for one in both])[:count]
        labels = np.concatenate([one.labels for one in both])[:count]
        return ImageSet(pixels, labels), "mnist"
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 28, 28, 1), dtype=np.uint8)
    return ImageSet(pixels, rng.integers(0, 10, count)), "noise"


def ways(images: ImageSet) -> dict[str, Callable[[], None]]:
    """Return the ways by name, their inputs made beforehand."""
    x = torch.from_numpy(images.images.copy()).float().div(255).permute(0, 3, 1, 2)
    y = torch.from_numpy(images.labels.copy())
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    batches = [(x[rows], y[rows]) for rows in order.split(BATCH)]
    whole = TensorDataset(x.contiguous(), y)
    return {
        "purpleteam": lambda: purpleteam_way(images),
        "bare": lambda: bare_way(batches),
        "seeds": lambda: seeds_way(whole),
    }


def measure(todo: dict[str, Callable[[], None]], repetitions: int) -> dict[str, list[float]]:
    """Return the processor seconds of every way in every repetition."""
    spent: dict[str, list[float]] = {name: [] for name in todo}
    for number in range(repetitions):
        for name, way in todo.items():
            before = time.process_time()
            way()
            spent[name].append(round(time.process_time() - before, 3))
            print(f"{number + 1}/{repetitions}  {name:10}  {spent[name][-1]:7.2f} s", flush=True)
    return spent


def processor() -> str:
    """Return the processor's model as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    images, origin = images_of(asked.images)
    warm_up = ways(images.first(10 * BATCH))
    measure(warm_up, 1)
    spent = measure(ways(images), asked.repetitions)
    least = {name: min(times) for name, times in spent.items()}
    found: dict[str, Any] = {
        "what": "processor seconds for one training epoch, least of the repetitions",
        "images": len(images),
        "data": origin,
        "batch_size": BATCH,
        "architecture": ARCHITECTURE,
        "threads": 1,
        "repetitions": asked.repetitions,
        "seconds": spent,
        "least": least,
        "over_bare": {name: round(took / least["bare"], 3) for name, took in least.items()},
        "fast_bfloat16": has_fast_bf16("cpu"),
        "machine": {**machine(), "model": processor()},
        "versions": versions(),
        "command": "python benchmarks/training.py",
    }
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"over bare: {found['over_bare']} -> {asked.out}")


if __name__ == "__main__":
    main()
