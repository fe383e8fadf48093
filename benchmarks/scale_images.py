"""What an attack holds in memory and takes, over images, classes and pixels.

    python benchmarks/scale_images.py images     memory and time over images: minutes
    python benchmarks/scale_images.py classes    cost over classes
    python benchmarks/scale_images.py pixels     cost over pixels
    python benchmarks/scale_images.py large      images of 224x224x3, more than are held: 25 minutes

Each measurement is a process of its own: `attack` with two steps of PGD on noise, by a small net
whose answers are the labels, so that most images stand and every step is taken. Each writes its
sections of results/scale.json and keeps the others.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from purpleteam import verbs
from purpleteam.core.machine import machine, versions
from purpleteam.data import streamed

RESULTS = Path(__file__).resolve().parent.parent / "results" / "scale.json"
COUNTS = (250, 500, 1_000, 2_000, 4_000)
SIDE = 64  # of the images that are counted
CLASSES = (2, 10, 100, 1_000)
SIDES = (28, 56, 112, 224)
FEW = 500  # images, where classes and pixels are counted
LARGE, WIDE = (2_500, 5_000, 100_000), 224  # streamed at the limit as it is; their side
LIMITS = {"held whole": streamed.IN_MEMORY, "streamed": 1 << 20}  # bytes of pixels that are held
EPSILON = 0.25 / 255
SAMPLE = 20  # images at a time, and images that the check of the evaluation looks at


def main() -> None:
    """Measure some sections, and keep the others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("section", choices=(*SECTIONS, "one"))
    parser.add_argument("rest", nargs="*", type=int)
    asked = parser.parse_args()
    if asked.section == "one":  # one measurement, in a process of its own
        sys.stdout.write(json.dumps(one(*asked.rest)) + "\n")
        return
    told = SECTIONS[asked.section]()
    kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    for name, section in told.items():
        kept[name] = kept.get(name, {}) | section
    kept |= {"machine": machine(), "versions": versions()}
    RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def images() -> dict[str, Any]:
    """Return peak memory and processor time over images, with and without room for all of them."""
    found = {
        name: {count: alone(SIDE, count, 10, limit) for count in COUNTS}
        for name, limit in LIMITS.items()
    }
    memory = {name: {n: one["peak"] for n, one in by.items()} for name, by in found.items()}
    seconds = {name: {n: one["seconds"] for n, one in by.items()} for name, by in found.items()}
    about = {"pixels": f"{SIDE}x{SIDE}x3"}
    return {"memory_over_images": about | memory, "time_over_images": about | seconds}


def classes() -> dict[str, Any]:
    """Return what an image costs by the number of classes."""
    return {"cost_over_classes": {str(n): each(alone(32, FEW, n, 1 << 20)) for n in CLASSES}}


def pixels() -> dict[str, Any]:
    """Return what an image costs by its size."""
    return {"cost_over_pixels": {f"{n}x{n}x3": each(alone(n, FEW, 10, 1 << 20)) for n in SIDES}}


def large() -> dict[str, Any]:
    """Return what large images take, more of them than are held."""
    told = {n: alone(WIDE, n, 10, streamed.IN_MEMORY) for n in LARGE}
    return {"memory_over_images": {"large": {"pixels": f"{WIDE}x{WIDE}x3", "by": told}}}


def each(found: dict[str, Any]) -> dict[str, Any]:
    """Return the milliseconds an image, and the peak."""
    return {"milliseconds": round(1000 * found["seconds"] / FEW, 2), "peak": found["peak"]}


def alone(*asked: int) -> dict[str, Any]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "one", *map(str, asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def one(side: int, count: int, classes: int, limit: int) -> dict[str, Any]:
    """Attack so many images of a size; return peak megabytes and seconds of the processor."""
    torch.set_num_threads(1)
    streamed.IN_MEMORY = limit
    net = small_net(side, classes)
    with tempfile.TemporaryDirectory() as work:
        write_noise(Path(work), net, count, side)
        started = time.process_time()
        found = verbs.attack(
            net,
            work,
            attack="pgd:steps=2",
            epsilon=[EPSILON],
            batch_size=SAMPLE,
            checked=SAMPLE,
            threads=1,
        )
        seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    standing = found.robust_accuracy.value
    return {"peak": round(peak), "seconds": round(seconds, 2), "standing": standing}


def small_net(side: int, classes: int) -> nn.Module:
    """Return a small net for images (3, side, side)."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 7, stride=7), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(128, classes)).eval()


def write_noise(folder: Path, net: nn.Module, count: int, side: int) -> None:
    """Write a test split of noise with the net's answers as labels, a few images at a time."""
    shape, rng, labels = (side, side, 3), np.random.default_rng(0), list[int]()
    with (folder / "test_x.npy").open("wb") as file, torch.no_grad():
        head = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
        np.lib.format.write_array_header_1_0(file, head)
        for start in range(0, count, SAMPLE):
            some = rng.integers(0, 256, (min(SAMPLE, count - start), *shape), dtype=np.uint8)
            file.write(some.tobytes())
            x = torch.from_numpy(some).permute(0, 3, 1, 2).float() / 255
            labels += net(x).argmax(1).tolist()
    np.save(folder / "test_y.npy", np.array(labels))
    names = np.array([str(number) for number in range(net[-1].out_features)])
    np.save(folder / "classes.npy", names)


SECTIONS = {"images": images, "classes": classes, "pixels": pixels, "large": large}

if __name__ == "__main__":
    main()
