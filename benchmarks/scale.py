"""What a cell of a sweep costs beside its work, by engine, and what a driver needs for many.

    python benchmarks/scale.py engines      the same cells by each engine: two free cores, minutes
    python benchmarks/scale.py driver       cells that take no time: what the driver itself takes

Each writes its section of results/scale.json. Ray is measured where it is installed.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from purpleteam.core.machine import machine, versions
from purpleteam.core.records import Measurement, Note
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.statistics import Rate
from purpleteam.pipeline.engines import ENGINES, Job, Outcome
from purpleteam.pipeline.plan import read_plan
from purpleteam.pipeline.sweep import run_sweep

RESULTS = Path(__file__).resolve().parent.parent / "results" / "scale.json"
CELLS, SEEDS = 200, 500
BUSY = """
name: busy
cells:
  - verb: attack
    model: [standard, robust-0.3]
    dataset: digits
    attack: ["pgd:steps=10", "pgd:steps=20"]
    epsilon: [0.05, 0.1, 0.15, 0.2, 0.25]
    seed: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    limit: 20
    checked: 20
"""
ENDS = {
    "one process": ("inline", 1),
    "two processes": ("inline", 2),
    "ray, two workers": ("ray", 2),
}
MOST_TWICE = 100_000
COUNTS = (1_000, 10_000, 100_000, 1_000_000)


def main() -> None:
    """Measure a section, and keep the others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("section", choices=("engines", "driver", "sweep", "many"))
    parser.add_argument("rest", nargs="*")
    asked = parser.parse_args()
    if asked.section in ("sweep", "many"):  # one measurement, in a process of its own
        found = sweep(*asked.rest) if asked.section == "sweep" else many(int(asked.rest[0]))
        sys.stdout.write(json.dumps(found) + "\n")
        return
    told = engines() if asked.section == "engines" else driver()
    kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    kept |= {asked.section: told, "machine": machine(), "versions": versions()}
    RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def engines() -> dict[str, Any]:
    """Return seconds of the same cells by each engine; the numbers of all must be the same."""
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "busy.yaml"
        file.write_text(BUSY, encoding="utf-8")
        found = {}
        for name, (engine, workers) in ENDS.items():
            if engine == "ray" and find_spec("ray") is None:
                continue
            found[name] = alone("sweep", str(file), f"{work}/{engine}-{workers}", engine, workers)
    if len({one.pop("digest") for one in found.values()}) != 1:
        raise SystemExit("the engines do not say the same")
    first = found["one process"]["seconds"]
    for one in found.values():
        one["faster than one process"] = round(first / one["seconds"], 2)
    return {"cells": CELLS, "by": found}


def sweep(file: str, out: str, engine: str, workers: str) -> dict[str, Any]:
    """Return what a sweep takes: in all, to start, and for a cell beside its work."""
    plan, started, ends = read_plan(Path(file)), time.perf_counter(), list[float]()
    spent: list[float] = []
    original = ENGINES[engine]

    class Watched:
        """An engine whose outcomes are timed."""

        def __init__(self, **how: Any) -> None:
            self.engine = original(**how)
            self.close = self.engine.close

        def run(self, jobs: deque[Job]) -> Iterator[Outcome]:
            for outcome in self.engine.run(jobs):
                ends.append(time.perf_counter())
                spent.append(outcome.seconds)
                yield outcome

    ENGINES.register("watched")(Watched)
    done = run_sweep(plan, Path(out), engine="watched", workers=int(workers))
    rest = ends[-1] - ends[int(workers)]  # after the first of each worker, which loads torch
    beside = rest - sum(spent[int(workers) + 1 :]) / int(workers)
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "seconds to the first cell's end": round(ends[0] - started, 2),
        "milliseconds of work a cell, median": round(1000 * statistics.median(spent), 1),
        "milliseconds beside it, a cell": round(1000 * beside / (len(ends) - int(workers)), 1),
        "done": done.done,
        "digest": RunFolder.open(Path(out)).metrics(),
    }


def driver() -> dict[str, Any]:
    """Return what the driver takes for cells that take no time."""
    return {f"{count}": alone("many", count) for count in COUNTS}


def many(count: int) -> dict[str, Any]:
    """Return seconds a cell and memory of a sweep whose cells are there at once."""

    class Instant:
        """An engine that answers without work."""

        def run(self, jobs: deque[Job]) -> Iterator[Outcome]:
            while jobs:
                job = jobs.popleft()
                seed, limit = job.options["seed"], job.options["limit"]
                value = Rate.of(limit % 7 + seed % 4, 10)
                subject = {"dataset": job.key, "model_name": "standard", "selection": "all"}
                measured = Measurement(
                    name="clean_accuracy", value=value, subject=subject, seed=seed
                )
                facts = {"verb": job.verb, "options": dict(job.options)}
                note = Note(name="asked", facts=facts | {"records": [measured.id]})
                told = [measured.to_json(), note.to_json()]
                yield Outcome(key=job.key, records=told, seconds=0.1)

        def close(self) -> None:
            """Nothing was started."""

    peaks = list[int]()
    ENGINES.register("instant")(lambda **_: Instant())
    with tempfile.TemporaryDirectory() as work:
        file, out = Path(work) / "many.yaml", Path(work) / "out"
        axes = {"limit": range(1, count // SEEDS + 1), "seed": range(SEEDS)}
        listed = ", ".join(f"{name}: {list(values)}" for name, values in axes.items())
        block = f"{{verb: evaluate, dataset: digits, {listed}}}"
        file.write_text(f"cells: [{block}]", encoding="utf-8")
        times = []
        for _ in range(2 if count <= MOST_TWICE else 1):
            started, spent = time.perf_counter(), time.process_time()
            run_sweep(read_plan(file), out, engine="instant")
            times.append((time.perf_counter() - started, time.process_time() - spent))
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
        sizes = [(out / name).stat().st_size / 1e6 for name in ("report.html", "records.jsonl")]
    _, spent = times[0]
    found = {
        "milliseconds of processor a cell": round(1000 * spent / count, 2),
        "peak megabytes": peaks[0],
        "megabytes of the page": round(sizes[0], 1),
        "megabytes of records": round(sizes[1], 1),
    }
    if len(times) > 1:
        found["seconds to go on where nothing is missing"] = round(times[1][0], 1)
    return found


def alone(*words: object) -> dict[str, Any]:
    """Return what a process of its own measures."""
    typed = [sys.executable, __file__, *map(str, words)]
    answer = subprocess.run(typed, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
