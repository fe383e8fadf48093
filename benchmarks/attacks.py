"""What attacks cost: beside every other library, beside a bare loop, and as images grow in number.

    python benchmarks/attacks.py                     all blocks, about 30 processor minutes
    python benchmarks/attacks.py --only steps        one block: steps, autoattack or scale

    steps       FGSM and PGD-40 on an undefended and a robust CNN: we, a bare loop, six libraries
    autoattack  AutoAttack standard over the replay of its own model calls, and beside torchattacks'
                code at the 100 steps of the paper
    scale       peak memory of 10,000 images of the undefended net, and seconds per image on
                growing subsets: PGD there, AutoAttack on the robust net

All get the same plain net: contiguous float32, parameters that want gradients. Ours is timed with
all that its public call does. The ways take turns, so that a busy machine hits all of them; the
cost is processor time on one thread, and the least of the repetitions counts (AutoAttack beside
torchattacks' is run once: it takes minutes). Real MNIST is used where PURPLETEAM_DATA has it, else
the embedded digits. `make peers` installs the libraries.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: waiting threads must not spin
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from attack_calls import least, record
from attack_peers import LIBRARIES, Ways, autoattack_100_steps, fgsm_ways, pgd_ways
from torch import Tensor, nn
from training import processor

from purpleteam.attacks.evaluate import evaluate
from purpleteam.attacks.evasion import ATTACKS
from purpleteam.attacks.evasion.autoattack import AutoAttack
from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import DataError
from purpleteam.core.machine import machine, versions
from purpleteam.data.folders import load_dataset
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.data.sources.mnist import find_mnist, load_mnist
from purpleteam.models import RECIPES, build, load, train
from purpleteam.models.devices import frozen, has_fast_bf16, to_batch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "attacks_speed.json"
BATCH = 250
EPSILON = 0.3
SEED = 0
GROWING = (
    ("pgd", "standard", (500, 1000, 2000, 4000)),
    ("autoattack", "robust-0.3", (50, 100, 200)),
)
"""An attack, a model that ships, and of how many images its cost is measured."""
MANY = 10_000
BLOCKS = ("steps", "autoattack", "scale")


def steps_block(asked: argparse.Namespace, dataset: Dataset) -> dict[str, Any]:
    """FGSM and PGD-40 by every library on both nets."""
    images = dataset.test.first(asked.images)
    batches = list(zip(*(part.split(BATCH) for part in tensors(images)), strict=True))
    found: dict[str, Any] = {"images": len(images), "batch_size": BATCH, "epsilon": EPSILON}
    for which, net in nets(asked, dataset).items():
        for kind, ways in (("fgsm", fgsm_ways(net)), ("pgd_40", pgd_ways(net))):
            repetitions = asked.repetitions * (4 if kind == "fgsm" else 1)
            found[f"{kind} {which}"] = compared(ways, batches, net, repetitions)
        found[f"digest {which}"] = digest_of(net)
    return found


def compared(
    ways: Ways, batches: list[tuple[Tensor, Tensor]], net: nn.Module, repetitions: int
) -> dict[str, Any]:
    """Time every way over the batches, and judge what it made."""
    made: dict[str, Tensor] = {}
    todo = {
        name: lambda name=name, way=way: made.__setitem__(
            name, torch.cat([way(x, y) for x, y in batches])
        )
        for name, way in ways.ways.items()
    }
    spent = measure(todo, repetitions)
    least = {name: min(times) for name, times in spent.items()}
    fastest = min((took, name) for name, took in least.items() if name in LIBRARIES)
    y = torch.cat([labels for _, labels in batches])
    return {
        "seconds": spent,
        "over_bare": ratios(least, "bare"),
        "robust_accuracy": {name: accuracy(net, x_adv, y) for name, x_adv in made.items()},
        "fastest_peer": fastest[1],
        "times_faster_than_fastest_peer": round(fastest[0] / least["purpleteam"], 2),
        "absent": ways.absent,
    }


def autoattack_block(asked: argparse.Namespace, dataset: Dataset) -> dict[str, Any]:
    """AutoAttack standard: over its own model calls, and beside torchattacks at 100 steps."""
    attack = AutoAttack(epsilon=EPSILON)
    images = dataset.test.first(asked.autoattack_images)
    x, y = tensors(images)
    found: dict[str, Any] = {"images": len(images), "epsilon": EPSILON}
    for which, net in nets(asked, dataset).items():
        runs, replays = [], []
        for _ in range(asked.repetitions):
            calls = record(attack, net, x, y, SEED)
            runs.append(calls.spent)
            replays.append(calls.replay(x, y))
        x_adv: dict[str, Tensor] = {}
        ways = {"purpleteam": lambda net=net: attack(net, x, y, seed=SEED)}
        if not asked.no_peers:
            ways["torchattacks"] = lambda net=net: autoattack_100_steps(
                net, EPSILON, len(dataset.classes)
            )(x, y)
        spent = measure({name: _kept(x_adv, name, way) for name, way in ways.items()}, 1)
        robust = {name: accuracy(net, one, y) for name, one in x_adv.items()}
        found[which] = {
            "seconds": spent,
            "calls": calls.images(),
            "over_replay": round(least(runs) / least(replays), 3),
            "replay_seconds": [round(sum(one), 4) for one in replays],
            "recorded_seconds": [round(sum(one), 4) for one in runs],
            "robust_accuracy": robust,
            "digest": digest_of(net),
        }
        print(f"{which}: {found[which]['over_replay']} of the replay", flush=True)
        if not asked.no_peers:
            faster = round(spent["torchattacks"][0] / spent["purpleteam"][0], 2)
            found[which] |= {"times_faster_than_torchattacks_at_100_steps": faster}
    return found


def _kept(found: dict[str, Tensor], name: str, way: Callable[[], Tensor]) -> Callable[[], None]:
    """Return the way with what it returns put into `found`."""
    return lambda: found.__setitem__(name, way())


def scale_block(asked: argparse.Namespace, dataset: Dataset) -> dict[str, Any]:
    """Peak memory of many images, each attack in a process of its own, and cost per image."""
    found: dict[str, Any] = {"model": "standard", "seconds_per_image": {}}
    for name in ("pgd", "autoattack"):
        found[name] = one = child(name, asked.many)
        print(f"{name}: {asked.many} images, {one['peak_megabytes']:.0f} MB", flush=True)
    for name, model, sizes in GROWING:
        found["seconds_per_image"][f"{name} {model}"] = {
            str(size): round(child(name, size, model)["seconds"] / size, 6) for size in sizes
        }
    return found


def child(name: str, count: int, model: str = "standard") -> dict[str, Any]:
    """Attack `count` images in a process of its own and return what it took."""
    command = [sys.executable, str(Path(__file__)), "--child", name, "--many", str(count)]
    command += ["--robust", model]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(run.stdout))


def as_child(name: str, count: int, model: str) -> None:
    """Print what an attack on `count` images of a model that ships took, as JSON."""
    dataset, _ = load_data()
    test = dataset.test
    rows = np.arange(count) % len(test)
    attack = ATTACKS[name](epsilon=EPSILON)
    net = load(model).module
    before = time.process_time()
    result = evaluate(net, test.take(rows), attack, seed=SEED)
    seconds = time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    robust = result.robust_accuracy.value
    print(json.dumps({"seconds": seconds, "peak_megabytes": peak, "robust_accuracy": robust}))


def nets(asked: argparse.Namespace, dataset: Dataset) -> dict[str, nn.Module]:
    """Return both nets as users have them: contiguous, parameters that want gradients."""
    if asked.undefended is not None:
        undefended = load(asked.undefended).module
    else:
        undefended = build("classic_cnn", to_shape(dataset), len(dataset.classes), seed=SEED)
        recipe = RECIPES["plain"](epochs=1)
        trained = train(undefended, dataset.train, dataset.validation, recipe, seed=SEED)
        undefended = trained.module
    both = {"undefended": undefended, "robust": load(asked.robust).module}
    return {
        name: net.to(memory_format=torch.contiguous_format).requires_grad_(True).eval()
        for name, net in both.items()
    }


def measure(todo: dict[str, Callable[[], None]], repetitions: int) -> dict[str, list[float]]:
    """Return the processor seconds of every way in every repetition."""
    spent: dict[str, list[float]] = {name: [] for name in todo}
    for number in range(repetitions):
        for name, way in todo.items():
            before = time.process_time()
            way()
            spent[name].append(round(time.process_time() - before, 4))
            print(f"{number + 1}/{repetitions}  {name:12}  {spent[name][-1]:8.2f} s", flush=True)
    return spent


def ratios(least: dict[str, float], base: str) -> dict[str, float]:
    """Return every cost as a multiple of `base`."""
    return {name: round(took / least[base], 3) for name, took in least.items()}


def accuracy(net: nn.Module, x_adv: Tensor, y: Tensor) -> float:
    """Return the share of images that the net itself still gets right."""
    with frozen(net), torch.no_grad():
        return float((net(x_adv).argmax(1) == y).float().mean())


def tensors(images: ImageSet) -> tuple[Tensor, Tensor]:
    """Return images and labels as every library takes them."""
    return to_batch(images.images).contiguous(), torch.from_numpy(images.labels.copy())


def to_shape(dataset: Dataset) -> tuple[int, int, int]:
    """Return channels, height, width."""
    height, width, channels = dataset.shape
    return channels, height, width


def digest_of(net: nn.Module) -> str:
    """Return the digest of a net's tensors in order of name."""
    return sha256_bytes(
        *(net.state_dict()[name].numpy().tobytes() for name in sorted(net.state_dict()))
    )


def load_data() -> tuple[Dataset, str]:
    """Return MNIST where it is at hand, else the embedded digits."""
    try:
        folder = find_mnist()
    except DataError:
        folder = None
    return (load_dataset("digits"), "digits") if folder is None else (load_mnist(folder), "mnist")


def peer_versions() -> dict[str, str]:
    """Return the version of each library that is installed."""
    found = {}
    for name in LIBRARIES.values():
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def command_of(typed: list[str]) -> str:
    """Return the command without the place of its results, which is somebody's own."""
    place = typed.index("--out") if "--out" in typed else len(typed)
    return " ".join(["python", "benchmarks/attacks.py", *typed[:place], *typed[place + 2 :]])


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=BLOCKS, action="append")
    parser.add_argument("--images", type=int, default=BATCH, help="for block steps")
    parser.add_argument("--autoattack-images", type=int, default=100)
    parser.add_argument("--many", type=int, default=MANY, help="for block scale")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--undefended", help="a model; default: classic_cnn trained for one epoch")
    parser.add_argument("--robust", default="robust-0.3")
    parser.add_argument(
        "--no-peers", action="store_true", help="leave torchattacks' AutoAttack out"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--child", choices=("pgd", "autoattack"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.child:
        as_child(asked.child, asked.many, asked.robust)
        return
    dataset, origin = load_data()
    makers = {"steps": steps_block, "autoattack": autoattack_block, "scale": scale_block}
    found = json.loads(asked.out.read_text("utf-8")) if asked.out.exists() else {}
    for block in asked.only or BLOCKS:
        found[block] = makers[block](asked, dataset) | {
            "repetitions": asked.repetitions,
            "seed": SEED,
            "data": origin,
            "threads": 1,
            "fast_bfloat16": has_fast_bf16("cpu"),
            "machine": {**machine(), "model": processor()},
            "versions": versions() | peer_versions(),
            "command": command_of(sys.argv[1:]),
        }
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"-> {asked.out}")


if __name__ == "__main__":
    main()
