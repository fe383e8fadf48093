"""What another verifier says of images that we proved, falsified or left open: results/judged.json.

    make peers                              brings vibecheck-nn, in an environment of its own
    python benchmarks/judge.py --work FOLDER    half an hour; goes on where it was stopped

Three tiny nets are trained on the embedded digits, `certify_ball` gives its verdicts on the test
images, and `purple export --vnnlib` writes some of each kind for the judge, which shares no code
with us: vibecheck-nn (GPL-3) is only ever run as a command. A contradiction is an image that one
proves and for which the other has a counterexample that ONNX Runtime shows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: waiting threads must not spin
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor, nn

import purpleteam as pt
from purpleteam.certify.ball import BallCertificate
from purpleteam.certify.cascade import certify_ball
from purpleteam.certify.vnnlib import Property
from purpleteam.core.digest import sha256_file
from purpleteam.core.machine import machine, versions
from purpleteam.data.folders import load_dataset
from purpleteam.data.images import ImageSet
from purpleteam.models.black_box import session_of
from purpleteam.models.devices import to_batch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "judged.json"
TOOLS = ROOT / ".venv" / "tools"
EACH = 8  # of each of our verdicts, the first images
TIMEOUT = 120
SPARE = 180  # seconds beyond it, after which the judge is stopped
OPPOSITE = {"verified": "sat", "falsified": "unsat"}


class Residual(nn.Module):
    """A convolution, a block that is added to its input, average pooling, a readout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 4, stride=4), nn.BatchNorm2d(4), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.readout = nn.Linear(36, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.block(x))
        return self.readout(nn.functional.avg_pool2d(x, 2).flatten(1))


def dense() -> nn.Module:
    """Return two hidden layers."""
    hidden = nn.Sequential(nn.Linear(784, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU())
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(24, 10))


def convolutional() -> nn.Module:
    """Return two convolutions and a hidden layer."""
    first = nn.Sequential(nn.Conv2d(1, 4, 4, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 4, stride=3))
    return nn.Sequential(*first, nn.ReLU(), nn.Flatten(), nn.Linear(64, 16), nn.ReLU(),
                         nn.Linear(16, 10))  # fmt: skip


NETS = {
    "dense": (dense, 0.05),
    "convolutional": (convolutional, 0.05),
    "residual": (Residual, 0.025),
}
"""Each with the radius at which validation images are of all three kinds."""


def trained(make: Any, images: ImageSet) -> nn.Module:
    """Return a net trained for seconds, always the same one."""
    torch.manual_seed(0)
    net: nn.Module = make()
    x, labels = to_batch(images.images), torch.from_numpy(images.labels.copy())
    optimiser = torch.optim.Adam(net.parameters(), 3e-3, weight_decay=1e-4)
    for _ in range(20):
        for rows in torch.randperm(len(x)).split(64):
            noisy = (x[rows] + 0.3 * torch.rand_like(x[rows]) - 0.15).clamp(0, 1)
            loss = nn.functional.cross_entropy(net(noisy), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return net.eval()


def chosen(found: BallCertificate) -> list[int]:
    """Return the first images of each verdict that were right when clean."""
    asked: list[int] = []
    for verdict in ("verified", "falsified", "unknown"):
        rows = np.flatnonzero((found.verdicts == verdict) & (found.decided_by != "clean"))
        asked += rows[:EACH].tolist()
    return sorted(asked)


def judged(tool: Path, folder: Path, name: str) -> None:
    """Let the judge say what it says of a property, once."""
    answer = folder / "answers" / f"{name}.txt"
    if answer.exists():
        return
    command = ["nice", "-n", "2", str(tool / "bin" / "vibecheck"), "verify", f"2.0/{name}.vnnlib"]
    command += ["--network", "N=net.onnx", "--timeout", str(TIMEOUT)]
    (folder / "answers").mkdir(exist_ok=True)
    safe = {"ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    started = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT + SPARE,
            check=False, env=os.environ | safe,
        )  # fmt: skip
        said = done.stdout
    except subprocess.TimeoutExpired:
        said = "timeout\n"
    if not said.strip():
        raise RuntimeError(f"vibecheck said nothing of {folder / name}: {done.stderr[-500:]}")
    (folder / "answers" / f"{name}.seconds").write_text(f"{time.monotonic() - started:.1f}")
    answer.write_text(said)


def parts_of(tool: Path) -> dict[str, str]:
    """Return the versions in the judge's environment."""
    names = ("vibecheck-nn", "onnx", "onnxruntime", "onnx2torch", "gurobipy", "torch")
    script = f"from importlib.metadata import version as v; print(*map(v, {names}))"
    told = subprocess.run(
        [str(tool / "bin" / "python"), "-c", script], capture_output=True, text=True, check=True
    )
    return dict(zip(names, told.stdout.split(), strict=True))


def asked_of(net: nn.Module, epsilon: float, images: ImageSet, folder: Path) -> dict[str, Any]:
    """Write the problem, unless it is there, and return what we say of each of its properties."""
    found = certify_ball(net, images, epsilon=epsilon)
    rows = chosen(found)
    if not folder.exists():
        pt.export(net, images.take(rows), vnnlib=folder, epsilon=epsilon, split="all", limit=None)
    session = session_of("net.onnx", (folder / "net.onnx").read_bytes())
    ours, shown = {}, 0
    for number, row in enumerate(rows):
        name = f"{number:05d}"
        ours[name] = str(found.verdicts[row])
        if ours[name] == "falsified":
            asked = Property.read((folder / "2.0" / f"{name}.vnnlib").read_text())
            shown += asked.refutation(session, found.counterexamples[row]) == ""
    return {
        "epsilon": epsilon,
        "images": len(images),
        "clean_accuracy": found.clean_accuracy.value,
        "all": found.counts,
        "ours": ours,
        "counterexamples_shown": shown,
        "net": sha256_file(folder / "net.onnx"),
        "manifest": sha256_file(folder / "manifest.json"),
    }


def main() -> None:
    """Ask, compare, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tools", type=Path, default=TOOLS)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--split", default="test", help="validation is for choices")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--dry", action="store_true", help="our verdicts alone")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    digits, tool = load_dataset("digits"), asked.tools / "vibecheck"
    if asked.dry:
        for name, (make, epsilon) in NETS.items():
            found = certify_ball(
                trained(make, digits.train), digits.split(asked.split), epsilon=epsilon
            )
            print(
                name,
                epsilon,
                found.clean_accuracy,
                found.counts,
                Counter(found.decided_by.tolist()),
            )
        return
    nets: dict[str, Any] = {}
    for name, (make, epsilon) in NETS.items():
        folder = asked.work / name
        net = trained(make, digits.train)
        told = asked_of(net, epsilon, digits.split(asked.split), folder)
        with ThreadPoolExecutor(asked.processes) as pool:
            list(pool.map(lambda one: judged(tool, folder, one), told["ours"]))  # noqa: B023
        read = pt.export(vnnlib=folder, verdicts=folder / "answers")
        nets[name] = told | compared(told["ours"], folder, read)
    content = {
        "command": "python benchmarks/judge.py --work FOLDER",
        "what": "verdicts of certify_ball beside those of another verifier on the same files",
        "dataset": {"name": "digits", "split": asked.split,
                    "digest": digits.split(asked.split).digest},
        "judge": parts_of(tool),
        "timeout": TIMEOUT,
        "nets": nets,
        "instances": sum(len(one["ours"]) for one in nets.values()),
        "contradictions": sum(len(one["contradictions"]) for one in nets.values()),
        "machine": machine(),
        "versions": versions(),
    }  # fmt: skip
    asked.out.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(json.dumps({name: one["counts"] for name, one in nets.items()}, indent=1))
    print(content["instances"], "instances,", content["contradictions"], "contradictions")


def compared(ours: dict[str, str], folder: Path, read: Any) -> dict[str, Any]:
    """Return how often each of our verdicts met each of the judge's, and what contradicts."""
    theirs = {name: (folder / "answers" / f"{name}.txt").read_text().split()[0] for name in ours}
    theirs = {name: word.replace("timed-out", "timeout") for name, word in theirs.items()}
    believed = {name: word for name, word in theirs.items() if name not in read.false_witnesses}
    counts = {kind: dict(Counter(theirs[name] for name in ours if ours[name] == kind))
              for kind in ("verified", "falsified", "unknown")}  # fmt: skip
    seconds = [float((folder / "answers" / f"{name}.seconds").read_text()) for name in ours]
    return {
        "counts": counts,
        "contradictions": [n for n, word in believed.items() if OPPOSITE.get(ours[n]) == word],
        "false_witnesses": read.false_witnesses,
        "median_seconds": statistics.median(seconds),
    }


if __name__ == "__main__":
    main()
