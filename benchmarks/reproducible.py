"""What `--reproducible` costs, and whether other processors then give the same bytes.

    python benchmarks/reproducible.py        writes results/reproducible.json

The work: train a small net on the embedded digits, evaluate it and attack it. It runs here with
the fastest kernels and with the reproducible ones and, where qemu-x86_64 (Debian: qemu-user) is
installed, on emulated processors. What is compared is the digest of the trained weights and of all
that evaluation and attacks answer. An emulator is no processor: its approximate instructions
(rcpps, rsqrtps) are exact, so a library that leans on those is found out here.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from purpleteam.core.digest import sha256_bytes
from purpleteam.core.machine import KERNELS, machine, versions

RESULTS = Path(__file__).resolve().parent.parent / "results" / "reproducible.json"
PROCESSORS = ("Nehalem", "Haswell", "EPYC")
"""SSE4.2 alone; Intel with AVX2 and FMA; AMD with the same."""
TURNS = 3


def work() -> dict[str, Any]:
    """Train, evaluate and attack; return digests of what came out, and the processor time."""
    import numpy as np
    import torch

    from purpleteam import attacks
    from purpleteam.data.folders import load_dataset
    from purpleteam.models import RECIPES, build, train
    from purpleteam.models.inference import logits

    torch.set_num_threads(1)
    started = time.process_time()
    digits = load_dataset("digits")
    images, few = digits.train.first(300), digits.test.first(30)
    net = build("small_cnn", (1, 28, 28), 10, seed=0)
    train(net, images, digits.validation, RECIPES["accurate"](epochs=1), seed=0)
    weights = b"".join(tensor.numpy().tobytes() for tensor in net.state_dict().values())
    ladder = (attacks.FGSM, attacks.PGD, attacks.APGDDLR)
    found = attacks.evaluate(
        net, few, *(one(epsilon=0.1) for one in ladder), attacks.Square(epsilon=0.1, queries=50)
    )
    parts = (logits(net, few.images), found.x_adv, found.broken_by, found.distance)
    answers = b"".join(np.ascontiguousarray(one).tobytes() for one in parts)
    return {
        "weights": sha256_bytes(weights)[:23],
        "answers": sha256_bytes(answers)[:23],
        "robust_accuracy": found.robust_accuracy.value,
        "seconds": round(time.process_time() - started, 2),
    }


def costs() -> dict[str, float]:
    """Return the processor seconds of a longer piece of each kind of work."""
    import torch

    from purpleteam import attacks
    from purpleteam.data.folders import load_dataset
    from purpleteam.models import RECIPES, build, load, train

    torch.set_num_threads(1)
    digits, seconds = load_dataset("digits"), {}
    started = time.process_time()
    net = build("classic_cnn", (1, 28, 28), 10, seed=0)
    train(net, digits.train, digits.validation, RECIPES["plain"](epochs=1), seed=0)
    seconds["training"] = time.process_time() - started
    started = time.process_time()
    attack = attacks.PGD(epsilon=0.3, steps=20)
    attacks.evaluate(load("robust-0.3").module, digits.test.first(100), attack)
    seconds["attack"] = time.process_time() - started
    return seconds


def times_the_fastest() -> dict[str, float]:
    """Return how many times the fastest kernels' seconds each work takes, the least of each."""
    found: dict[str, list[dict[str, float]]] = {"fastest": [], "reproducible": []}
    for _ in range(TURNS):
        for name, kernels in (("fastest", {}), ("reproducible", KERNELS)):
            found[name].append(ran((), kernels, "--costs"))
    least = {name: {k: min(one[k] for one in of) for k in of[0]} for name, of in found.items()}
    return {k: round(least["reproducible"][k] / least["fastest"][k], 2) for k in least["fastest"]}


def main() -> None:
    """Do the work on each processor that can be had, and write what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", action="store_true", help="do the work here, and print it")
    parser.add_argument("--costs", action="store_true", help="time work here, and print it")
    asked = parser.parse_args()
    if asked.work or asked.costs:
        print(json.dumps(work() if asked.work else costs()))
        return
    found = {
        "here, fastest": ran((), {}),
        "here, reproducible": ran((), KERNELS),
        "here, reproducible, again": ran((), KERNELS),
    }
    emulator = shutil.which("qemu-x86_64")
    for processor in PROCESSORS if emulator else ():
        found[f"{processor} (emulated), reproducible"] = ran(
            (str(emulator), "-cpu", processor), KERNELS
        )
        show(found)
    alike = {
        (one["weights"], one["answers"]) for name, one in found.items() if "fastest" not in name
    }
    result = {
        "what": "train, evaluate and attack a small net; digests of the weights and the answers",
        "found": found,
        "same_bytes": len(alike) == 1,
        "times_the_fastest": times_the_fastest(),
        "machine": machine() | {"processor_name": processor_name()},
        "versions": versions(),
        "command": "python benchmarks/reproducible.py",
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    show(found)


def ran(emulator: tuple[str, ...], kernels: dict[str, str], what: str = "--work") -> dict[str, Any]:
    """Do the work in a process of its own."""
    python = os.path.realpath(sys.executable)  # an emulator starts no script
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [*emulator, python, __file__, what],
        env=os.environ | kernels | {"PYTHONPATH": paths},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def processor_name() -> str:
    """Return what the processor calls itself."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")


def show(found: dict[str, dict[str, Any]]) -> None:
    """Print what there is so far."""
    for name, one in found.items():
        print(f"{name:40} {one['weights']} {one['answers']} {one['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
