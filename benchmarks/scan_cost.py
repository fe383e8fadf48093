"""What scanning costs: time for our tree, a model of 2 MB, a thousand files; and memory."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from purpleteam.scan.gate import read_state_dict
from purpleteam.scan.judgement import judge
from purpleteam.scan.scanners.model_file import scan_model_files

REPEATS = 5
SIZES = ((10, (64, 64)), (400, (64, 64)), (4000, (16, 16)), (10, (1000, 1000)))
"""Tensors, and the shape of each."""
LARGEST = 64 << 20
"""Bytes of the largest tensor of the file by which memory is measured."""


def measure(root: Path) -> dict[str, Any]:
    """Return the seconds of the command over whole folders, and those of one model."""
    with tempfile.TemporaryDirectory(prefix="purple-cost-") as work:
        here = Path(work)
        listed = subprocess.run(
            ["git", "-C", str(root), "ls-files", "-z"],  # noqa: S607
            capture_output=True, text=True, check=True,
        ).stdout.split("\0")  # fmt: skip
        for name in filter(None, listed):
            target = here / "tree" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, target)
        sources = sorted((here / "tree" / "src").rglob("*.py"))
        for number in range(1000):
            target = here / "thousand" / f"part{number // 50}" / f"file{number}.py"
            target.parent.mkdir(parents=True, exist_ok=True)
            text = sources[number % len(sources)].read_text(encoding="utf-8")
            target.write_text(f"NUMBER = {number}\n{text}", encoding="utf-8")
        model = here / "model.pt"
        torch.save(OrderedDict(w=torch.rand(1000, 500)), model)
        return {
            "tree": _command(here / "tree"),
            "source": _command(here / "tree" / "src"),
            "thousand": _command(here / "thousand"),
            "model": {
                "megabytes": round(model.stat().st_size / 1e6, 1),
                "gate_ms": round(1000 * _least(lambda: read_state_dict(model)), 1),
                "scan_ms": round(1000 * _least(lambda: scan_model_files(model)), 1),
            },
            "beside_torch": [_beside(here, *size) for size in SIZES],
            "largest_megabytes": LARGEST >> 20,
            "memory_megabytes": _memory(here),
        }


def _command(folder: Path) -> dict[str, Any]:
    """Return what `purple scan` over a folder takes, from its start to its end; the least."""
    clocks, costs = [], []
    for _ in range(2):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "purpleteam", "scan", str(folder)],
            capture_output=True,
            check=False,
        )
        clocks.append(time.perf_counter() - started)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if done.returncode not in (0, 1):
            raise RuntimeError(done.stderr.decode()[-300:])
    return {
        "files": sum(one.is_file() for one in folder.rglob("*")),
        "seconds": round(min(clocks), 2),
        "cpu_seconds": round(min(costs), 2),
    }


def _least(work: Callable[[], object]) -> float:
    spent = []
    for _ in range(REPEATS):
        before = time.thread_time()  # the process's is told by ticks while a limit of it runs
        work()
        spent.append(time.thread_time() - before)
    return min(spent)


def _beside(folder: Path, tensors: int, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the processor time of the gate and of torch for one state dict."""
    path = folder / "state.pt"
    torch.save(
        OrderedDict((f"layer{one}.weight", torch.rand(shape)) for one in range(tensors)), path
    )
    gate = _least(lambda: read_state_dict(path))
    peer = _least(lambda: torch.load(path, weights_only=True))
    return {"tensors": tensors, "shape": list(shape), "ratio": round(gate / peer, 2)}


def _memory(folder: Path) -> dict[str, float]:
    """Return what judging holds of four tensors of LARGEST bytes each, by format of the file."""
    from safetensors.numpy import save_file

    state = {f"w{one}": np.ones(LARGEST // 4, np.float32) for one in range(4)}
    half = {name: torch.from_numpy(one[: LARGEST // 8]).half() for name, one in state.items()}
    paths = [
        folder / "large.safetensors",
        folder / "large.pt",
        folder / "old.pt",
        folder / "half.pt",
    ]
    save_file(state, paths[0])
    whole = {name: torch.from_numpy(one) for name, one in state.items()}
    torch.save(whole, paths[1])
    torch.save(whole, paths[2], _use_new_zipfile_serialization=False)
    torch.save(half, paths[3])
    del whole, state, half
    found = {}
    for path in paths:
        tracemalloc.start()
        grade = judge(path).grade
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if grade not in ("note", "unsupported"):
            raise RuntimeError(f"{path.name} is {grade}")
        found[path.name] = round(peak / (1 << 20), 1)
        path.unlink()
    return found
