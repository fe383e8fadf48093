"""How long signing and verifying a model of 2 MB take, and how many flipped bytes are caught.

    python benchmarks/signing.py             writes results/signing.json

Times are of one process that has loaded the libraries, medians of REPEATS; `first` is the first
call of a new process, loading included. Every byte of a signature is flipped, and FLIPPED of each
other file, in each form; a flip that verification lets pass is a failure, a slow time is not.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from purpleteam.core.cards import ModelCard
from purpleteam.core.digest import sha256_file
from purpleteam.core.machine import machine, versions
from purpleteam.core.provenance import sign_subject, verify_signed
from purpleteam.core.signing import FORMS, KEYS, make_key

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "signing.json"
BYTES, REPEATS, FLIPPED = 2_000_000, 200, 200
FIRST = """
import sys, time
started = time.perf_counter()
from pathlib import Path
from purpleteam.core.provenance import sign_subject, verify_signed
sign_subject(sys.argv[1], Path(sys.argv[2]))
verify_signed(sys.argv[1], Path(sys.argv[2]).with_suffix(".pub"))
print(time.perf_counter() - started)
"""


def main() -> None:
    """Measure, and write what was found; a flip that passes is a failure."""
    rows, flips = [], {"tried": 0, "caught": 0}
    with tempfile.TemporaryDirectory(prefix="signing-") as name:
        model = write_model(Path(name))
        for kind in KEYS:
            key = Path(name) / "keys" / f"{kind}.key"
            make_key(key, kind)
            command = [sys.executable, "-c", FIRST, str(model), str(key)]
            first = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            for form in FORMS:
                rows.append({"key": kind, "form": form, "first_ms": round(1e3 * float(first), 1)})
                rows[-1] |= timed(model, key, form)
                flip(model, key, form, flips)
    content = {
        "command": "python benchmarks/signing.py",
        "machine": machine(),
        "versions": versions(),
        "load": os.getloadavg()[0],
        "bytes": BYTES,
        "rows": rows,
        "flips": flips,
    }
    RESULTS.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for row in rows:
        print(row)
    print(flips)
    if flips["caught"] < flips["tried"]:
        raise SystemExit(1)


def write_model(folder: Path) -> Path:
    """Write three files of a model, 2 MB together, that only signing has to like."""
    stem, rng = folder / "model", np.random.default_rng(0)
    for end in (".safetensors", ".onnx"):
        stem.with_suffix(end).write_bytes(rng.bytes(BYTES // 2))
    ModelCard(
        name="model",
        digest=sha256_file(stem.with_suffix(".safetensors")),
        onnx_digest=sha256_file(stem.with_suffix(".onnx")),
        architecture="none",
        input={"channels": 1, "height": 28, "width": 28, "range": [0, 1]},
        classes=tuple("0123456789"),
    ).write(stem.with_suffix(".json"))
    return stem


def timed(model: Path, key: Path, form: str) -> dict[str, Any]:
    """Return milliseconds of signing and of verifying, by the clock and of the processor."""
    public = key.with_suffix(".pub")
    calls: dict[str, Callable[[], object]] = {
        "sign": lambda: sign_subject(model, key, form=form),
        "verify": lambda: verify_signed(model, public),
    }
    found = {}
    for name, call in calls.items():
        walls, cpus = [], []
        for _ in range(REPEATS):
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
        found[f"{name}_ms"] = round(1e3 * statistics.median(walls), 2)
        found[f"{name}_cpu_ms"] = round(1e3 * statistics.median(cpus), 2)
    return found


def flip(model: Path, key: Path, form: str, counts: dict[str, int]) -> None:
    """Flip bytes of each file, one at a time, and count those that verification catches."""
    rng, public = np.random.default_rng(1), key.with_suffix(".pub")
    for end in (".sig", ".json", ".onnx", ".safetensors"):
        file = model.with_suffix(end)
        content = file.read_bytes()
        places = range(len(content))
        for place in places if end == ".sig" else rng.integers(len(content), size=FLIPPED):
            changed = bytearray(content)
            changed[place] ^= int(rng.integers(1, 256))
            file.write_bytes(changed)
            counts["tried"] += 1
            counts["caught"] += verify_signed(model, public)[0].verdict == "fail"
        file.write_bytes(content)


if __name__ == "__main__":
    main()
