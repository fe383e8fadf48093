"""Whether the gate reads what torch, safetensors and NumPy read, and what it costs beside torch.

    python benchmarks/gate.py               writes results/gate.json

Part one changes small files of every kind at random, 10,000 times, with knowledge of zip records,
pickle opcodes and headers. Whatever the gate accepts is read by the other libraries as well, in a
process of their own: they must read the same names and values. Part two saves state dicts of more
and more tensors and reads each with the gate and with torch.load(weights_only=True), in turn; the
least CPU time of several counts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import safetensors
import torch

from purpleteam.core.machine import machine, versions
from purpleteam.scan.gate import read_state_dict

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "gate.json"
SIZES = ((10, (64, 64)), (400, (64, 64)), (4000, (16, 16)), (10, (1000, 1000)))
"""Tensors, and the shape of each."""
REPEATS = 5
ALLOWED_FACTOR, ALLOWED_SECONDS = 2, 0.02


def main() -> None:
    """Run both parts and write what was found; any disagreement is a failure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000, help="how many changed files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="purple-gate-") as folder:
        fuzz = differential(Path(folder), asked.files, asked.seed)
        costs = [cost(Path(folder), *size) for size in SIZES]
    content = {
        "command": "python benchmarks/gate.py",
        "machine": machine(),
        "versions": {
            **versions(),
            "numpy": np.__version__,
            "safetensors": safetensors.__version__,
            "torch": torch.__version__,
        },
        "differential": {"seed": asked.seed, **fuzz},
        "cost": costs,
    }
    asked.out.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for file, why in fuzz["disagreements"].items():
        print(f"{file}: {why}")
    for one in costs:
        print(f"{one['tensors']} tensors: {one['ratio']} of torch, within: {one['within']}")
    print(f"{fuzz['files']} files, {fuzz['accepted']}, {len(fuzz['disagreements'])} disagreements")
    if fuzz["disagreements"]:
        raise SystemExit(1)


def differential(folder: Path, files: int, seed: int) -> dict[str, Any]:
    """Change files, and compare our reading of those that we accept with that of others."""
    sys.path.insert(0, str(ROOT / "tests" / "scan"))
    import scan_fuzz
    import scan_peers

    rng = random.Random(seed)  # noqa: S311 (it changes files and guards nothing)
    originals = scan_fuzz.originals()
    names = list(originals)
    accepted: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    kept, slowest = [], 0.0
    for number in range(files):
        name = names[number % len(names)]
        path = folder / f"{number:05d}-{name}"
        path.write_bytes(scan_fuzz.changed(name, originals[name], rng))
        before = time.process_time()
        taken = scan_peers.accepted(path)
        slowest = max(slowest, time.process_time() - before)
        tried[path.suffix] += 1
        if taken:
            accepted[path.suffix] += 1
            kept.append(path)
        else:
            path.unlink()
    differ = scan_peers.differences(kept)
    return {
        "files": files,
        "changed": dict(tried),
        "accepted": dict(accepted),
        "refused": files - len(kept),
        "disagreements": {Path(path).name: why for path, why in differ.items()},
        "slowest_seconds": round(slowest, 3),
    }


def cost(folder: Path, tensors: int, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the CPU seconds of the gate and of torch for one state dict."""
    path = folder / "state.pt"
    state = OrderedDict((f"layer{place}.weight", torch.rand(shape)) for place in range(tensors))
    torch.save(state, path)
    ours, theirs = [], []
    for _ in range(REPEATS):
        theirs.append(_seconds(lambda: torch.load(path, weights_only=True)))
        ours.append(_seconds(lambda: read_state_dict(path)))
    gate, peer = min(ours), min(theirs)
    return {
        "tensors": tensors,
        "shape": list(shape),
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "gate_seconds": round(gate, 4),
        "torch_seconds": round(peer, 4),
        "ratio": round(gate / peer, 2),
        "within": gate <= ALLOWED_FACTOR * peer + ALLOWED_SECONDS,
    }


def _seconds(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


if __name__ == "__main__":
    main()
