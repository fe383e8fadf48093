"""A million files changed at random: no crash, no hang, no memory without end, no other reading.

A child makes and judges the files, under a limit of memory and one of time for each; where it dies,
that file is noted and another child goes on behind it. File NUMBER of a SEED is always the same.
Whatever the gate accepts, torch, safetensors and NumPy read in the same child with the same names,
shapes and values; of an ONNX file that the scan calls sound, onnx reads every weight, or refuses
the file.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import json
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "scan"))
BATCH = 1000
LIMIT_SECONDS = 10
"""Of processor time, for a file of a few kilobytes."""
LIMIT_GROWTH = 256 << 20
"""Bytes that the child may hold beyond what it held after its first files."""
ADDRESS_SPACE = 6 << 30
GREEN = ("note", "unsupported")


def code() -> str:
    """Return which code judges: the digest of the gate and of all that it reads files with."""
    found, scan = hashlib.sha256(), ROOT / "src" / "purpleteam" / "scan"
    for path in sorted([scan / "gate.py", scan / "judgement.py", *(scan / "formats").iterdir()]):
        found.update(path.read_bytes() if path.suffix == ".py" else b"")
    return found.hexdigest()[:12]


class Slow(Exception):
    """A file took more time than one of its size may."""


def originals() -> dict[str, bytes]:
    """Return a small whole file of every format, by name; all are accepted or harmless."""
    import joblib
    import numpy as np
    import scan_corpus
    import scan_fuzz

    files = scan_fuzz.originals()
    files |= {"a.onnx": scan_corpus.onnx_file(), "b.onnx": _net()}
    inner = io.BytesIO()
    np.save(inner, np.arange(5))
    files["a.npy.gz"] = gzip.compress(inner.getvalue(), mtime=0)
    files["a.pkl.bz2"] = bz2.compress(pickle.dumps({"x": [1, 2]}))
    target = io.BytesIO()
    joblib.dump({"x": [1, 2], "y": "text"}, target)
    files["a.joblib"] = target.getvalue()
    return files


def _net() -> bytes:
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    weights = [
        helper.make_tensor("w", TensorProto.FLOAT, [1, 4], [1.0, 2.0, 3.0, 4.0]),
        helper.make_tensor("v", TensorProto.INT8, [4], b"\1\2\3\4", raw=True),
    ]
    nodes = [helper.make_node("Add", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    graph = helper.make_graph(nodes, "g", [value], [out], weights)
    return bytes(helper.make_model(graph, ir_version=10).SerializeToString())


def file_of(number: int, seed: int, files: dict[str, bytes]) -> tuple[str, bytes]:
    """Return the name and the content of one changed file."""
    import scan_fuzz

    rng = random.Random(f"{seed}-{number}")  # noqa: S311 (it changes files and guards nothing)
    name = list(files)[number % len(files)]
    data = files[name]
    if rng.random() < 0.05:
        data = data[: rng.randrange(len(data) + 1)]
    return name, scan_fuzz.changed(name, data, rng)


def child(start: int, end: int, seed: int, work: Path) -> None:
    """Judge and compare files; say after each batch what became of them."""
    import scan_peers
    import torch

    from purpleteam.scan.gate import read_state_dict
    from purpleteam.scan.scanners.model_file import scan_model_files

    def late(*_: object) -> None:
        raise Slow

    signal.signal(signal.SIGVTALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    torch.set_num_threads(1)
    files, place, judge = originals(), work / "at", code()
    base = 0
    with place.open("wb", buffering=0) as at:
        for first in range(start, end, BATCH):
            tally, bad = Counter[str](), {}
            slowest = 0.0
            for number in range(first, min(first + BATCH, end)):
                name, data = file_of(number, seed, files)
                at.seek(0)
                at.write(b"%020d" % number)
                path = work / f"changed-{name}"
                path.write_bytes(data)
                suffix = path.suffix
                tally[f"{suffix} files"] += 1
                before = time.process_time()
                try:
                    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_SECONDS)
                    verdict = read_state_dict(path)
                    if number % 7 == 0:  # it shares its judgement with the gate
                        scan_model_files(path)
                    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
                    slowest = max(slowest, time.process_time() - before)
                    tally[f"{suffix} {verdict.grade}"] += 1
                    why = _differs(path, verdict, scan_peers, tally)
                except (Slow, Exception) as error:
                    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
                    late_one = isinstance(error, Slow) or "Slow" in str(error)
                    kind = "hang" if late_one else "crash"
                    bad[number] = [kind, name, f"{type(error).__name__}: {error}"[:300]]
                else:
                    if any("Slow" in one for one in verdict.reasons):
                        bad[number] = ["hang", name, "within the judgement"]
                    if why:
                        bad[number] = ["difference", name, why]
                path.unlink()
            held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            base = base or held
            if held - base > LIMIT_GROWTH:
                bad[first] = ["growth", "batch", f"{(held - base) >> 20} MB over the first batch"]
                base = held
            row = {"next": min(first + BATCH, end), "code": judge, "tally": tally, "bad": bad,
                   "slowest": slowest, "grown": held - base}  # fmt: skip
            print(json.dumps(row), flush=True)


def _differs(path: Path, verdict: Any, peers: Any, tally: Counter[str]) -> str:
    """Return how others read a file that we accept, where they read it differently."""
    if path.suffix == ".onnx":
        if verdict.grade not in GREEN:
            return ""
        import onnx
        from google.protobuf.message import DecodeError
        from onnx import numpy_helper

        try:
            for one in onnx.load_model(path).graph.initializer:
                numpy_helper.to_array(one)
        except (
            DecodeError,
            KeyError,
            TypeError,
            ValueError,
        ):  # it loads nowhere
            tally[".onnx refused by onnx"] += 1
        else:
            tally[".onnx compared"] += 1
        return ""
    if path.suffix in (".gz", ".bz2", ".joblib") or not peers.accepted(path):
        return ""
    tally[f"{path.suffix} compared"] += 1
    if verdict.verdict == "accepted":
        tally[f"{path.suffix} accepted"] += 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return str(peers._compared(path))
        except Exception as error:
            return f"{type(error).__name__}: {error}"[:300]


def fuzz(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Change and judge so many files, in children; what was done is not done again."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"rows-{seed}.jsonl"
    rows = [json.loads(one) for one in log.read_text().splitlines()] if log.exists() else []
    done, started = rows[-1]["next"] if rows else 0, time.monotonic()
    begun = done
    while done < count:
        command = [sys.executable, __file__, str(done), str(count), str(seed), str(folder)]
        with (
            log.open("a", encoding="utf-8") as kept,
            (folder / "errors").open("wb") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as running,
        ):
            assert running.stdout is not None
            for line in running.stdout:
                if line.startswith("{"):
                    kept.write(line)
                    kept.flush()
                    rows.append(json.loads(line))
                    done = rows[-1]["next"]
                    rate = (done - begun) / (time.monotonic() - started)
                    bad = sum(len(one["bad"]) for one in rows)
                    print(
                        f"{done:,} of {count:,} files, {rate:.0f} a second, {bad} bad", flush=True
                    )
            running.wait()
            if done < count:  # it died on a file, which the next child leaves out
                at = max(done, int((folder / "at").read_bytes() or b"0"))
                name = f"killed by {running.returncode}"
                why = (folder / "errors").read_text(errors="replace")[-300:]
                bad = {at: ["crash", name, why]}
                row = {
                    "next": at + 1,
                    "code": code(),
                    "tally": {},
                    "slowest": 0.0,
                    "grown": 0,
                    "bad": bad,
                }
                kept.write(json.dumps(row) + "\n")
                rows.append(row)
                done = at + 1
    return summary(rows, seed)


def summary(rows: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Return counts by format, and each file on which anything went wrong."""
    tally = Counter[str]()
    bad: dict[str, dict[str, list[str]]] = {
        kind: {} for kind in ("crash", "hang", "growth", "difference")
    }
    for row in rows:
        tally.update(row["tally"])
        for number, (kind, name, why) in row["bad"].items():
            bad[kind][number] = [name, why]
    formats: dict[str, dict[str, int]] = {}
    judges = Counter[str]()
    for row in rows:
        judges[row["code"]] += sum(row["tally"][one] for one in row["tally"] if "files" in one)
    for key, number in tally.items():
        suffix, what = key.split(" ", 1)
        formats.setdefault(suffix, {})[what] = number
    return {
        "seed": seed,
        "files": sum(one["files"] for one in formats.values()),
        "formats": formats,
        "code": [*map(list, judges.items())],  # in turn
        "crashes": bad["crash"],
        "hangs": bad["hang"],
        "growth": bad["growth"],
        "differences": bad["difference"],
        "slowest_seconds": round(max(row["slowest"] for row in rows), 3),
    }


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        child(*map(int, sys.argv[1:4]), Path(sys.argv[4]))
