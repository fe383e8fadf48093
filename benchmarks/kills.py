"""The kill matrix: a sweep that is struck at ten moments ends with the bytes of one that was not.

    python benchmarks/kills.py inline       a worker, the driver, a full disk: processes of one host
    python benchmarks/kills.py ray          a worker, a node, the driver: nodes in namespaces

Each writes its rows of results/kills.json. Struck is with SIGKILL; a full disk is a small file
system that is filled, and emptied before the same command is given again. The net of the cells
notes each of its answers, so a cell that was done twice shows. Full disks and namespaces need
root on Linux; without it nodes are processes of one host, and disks are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_nodes import Nodes, can_isolate, line_of, tree

from purpleteam.core.machine import machine, versions
from purpleteam.core.runfolder import RunFolder

RESULTS = Path(__file__).resolve().parent.parent / "results" / "kills.json"
PURPLE = str(Path(sys.executable).with_name("purple"))
NOTED = range(50, 70)
"""Numbers of images of the cells whose net notes its answers: a probe looks at others."""
CELLS, MOMENTS, WORKERS = len(NOTED) + 4, 10, 2
SLOW = 0.03  # seconds that an answer takes: so that there is something to strike
WAIT = 150.0  # seconds for a sweep
NET = f"""
import os, time, torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(784, 10)
        torch.nn.init.eye_(self.layer.weight), torch.nn.init.zeros_(self.layer.bias)
    def forward(self, x):
        if 50 <= len(x) < 70:
            time.sleep({SLOW})
            with open(os.environ["NOTES"], "a") as notes:
                notes.write(f"{{len(x)}} ")
        return self.layer(x.flatten(1))
def build():
    return Net()
"""
SWEEP = {
    "name": "killed",
    "cells": [
        {"verb": "train", "as": "net", "dataset": "digits", "arch": "small_cnn", "epochs": 1},
        {"verb": "evaluate", "model": "net", "dataset": "digits", "limit": [10, 11, 12]},
        {
            "verb": "evaluate",
            "model": "own.py:build",
            "dataset": "digits",
            "limit": list(NOTED),
        },
    ],
}


@dataclass
class Sweep:
    """One sweep in a folder of its own: begun, watched, struck, begun again."""

    folder: Path
    how: tuple[str, ...]
    notes: Path
    """Outside of the folder: all nodes see it."""
    nodes: Nodes | None = None

    def __post_init__(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        (self.folder / "own.py").write_text(NET, encoding="utf-8")
        (self.folder / "sweep.json").write_text(json.dumps(SWEEP), encoding="utf-8")
        (self.folder / "sweep.json").rename(self.folder / "sweep.yaml")  # JSON is YAML
        self.notes.write_text("")

    def begin(self) -> subprocess.Popen[str]:
        command = [PURPLE, "sweep", "sweep.yaml", "--out", "run/killed", *self.how, "--quiet"]
        env = (self.nodes.env if self.nodes else os.environ) | {"NOTES": str(self.notes)}
        return subprocess.Popen(  # our own command
            self.nodes.inside(0, command) if self.nodes else command,
            cwd=self.folder,
            env=env | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def answers(self) -> Counter[str]:
        """Return how often the net answered of each number of images."""
        return Counter(self.notes.read_text().split())

    def kept(self) -> set[str]:
        """Return the numbers of images of the cells that are kept, finished or left."""
        told = [*(self.folder / "run").rglob("*.jsonl"), *(self.folder / "run").rglob("*.json")]
        found = "".join(path.read_text(encoding="utf-8", errors="ignore") for path in told)
        found = found.replace(" ", "").replace('\\"', '"')
        return {str(n) for n in NOTED if f'"limit":{n},' in found}

    def metrics(self) -> tuple[str, str]:
        """Return the records less their costs, and the table."""
        run = RunFolder.open(self.folder / "run" / "killed")
        return run.metrics(), (run.path / "exports" / "sweep.csv").read_text(encoding="utf-8")


def strike(what: str, sweep: Sweep, driver: subprocess.Popen[str], chance: random.Random) -> bool:
    """Kill a worker, a node or the driver; say whether there was one."""
    nodes = sweep.nodes
    if what == "driver":
        for pid in tree(driver.pid)[:1] if nodes is None else tree(driver.pid):
            os.kill(pid, signal.SIGKILL)
        return True
    if what == "node" and nodes:
        number = chance.choice(sorted(set(nodes.running) - {0}))
        nodes.kill(number)
        return True
    if nodes:
        working = [pid for number in nodes.running for pid in nodes.workers(number)]
    else:
        working = [pid for pid in tree(driver.pid) if "engines._worker" in line_of(pid)]
    if not working:
        return False
    with suppress(ProcessLookupError):
        os.kill(chance.choice(working), signal.SIGKILL)
    return True


@contextmanager
def filled(sweep: Sweep) -> Iterator[None]:
    """Fill the disk of a sweep's run, and empty it again."""
    filler = sweep.folder / "run" / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"\\0" * 4096)
    with suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(b"\\0")
    yield
    filler.unlink()


def trial(
    what: str, moment: int, sweep: Sweep, alone: tuple[str, str], usual: int
) -> dict[str, Any]:
    """Strike a sweep when so many of its cells have answered, and let it come to its end."""
    chance = random.Random(f"{what} {moment}")  # noqa: S311 - no secret
    asked = round(len(NOTED) * moment / (MOMENTS + 1))
    commands, struck, kept = 1, False, set[str]()
    driver = sweep.begin()
    while driver.poll() is None and len(sweep.answers()) < max(asked, 1):
        time.sleep(0.01)
    time.sleep(chance.uniform(0, SLOW))
    before = sweep.answers()
    kept = sweep.kept()
    if what == "disk":
        with filled(sweep):
            told = driver.communicate(timeout=WAIT)[0]
            struck = driver.returncode == 2 and "no space" in told and "Traceback" not in told
    elif driver.poll() is None:
        struck = strike(what, sweep, driver, chance)
        told = driver.communicate(timeout=WAIT)[0]
    while driver.returncode and commands < 3:
        driver, commands = sweep.begin(), commands + 1
        told = driver.communicate(timeout=WAIT)[0]
    answers = sweep.answers()
    done_again = sum(answers[name] > before[name] for name in kept)
    more = sum(answers.values()) - usual * len(NOTED)
    metrics, table = sweep.metrics() if driver.returncode == 0 else ("", told)
    return {
        "struck": what,
        "moment": moment,
        "cells_before": len(kept),
        "hit": struck,
        "commands": commands,
        "same_records": metrics == alone[0],
        "same_table": table == alone[1],
        "kept_and_done_again": done_again,
        "answers_lost": more,
    }


def measured(engine: str, moments: int) -> list[dict[str, Any]]:
    """Return a row for each strike."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="purple-kills-") as name:
        place = Path(name)
        notes = place / "notes"
        alone = Sweep(place / "alone", (), notes)
        process = alone.begin()
        told = process.communicate(timeout=WAIT)[0]
        if process.returncode:
            raise RuntimeError(f"the sweep failed: {told}")
        bytes_alone, answered = alone.metrics(), set(alone.answers().values())
        (usual,) = answered  # each cell asks its net as often
        nodes = None
        how: tuple[str, ...] = ("--workers", str(WORKERS))
        kinds = ["worker", "driver", *(["disk"] if can_isolate() else [])]
        if engine == "ray":
            own = {"NOTES": str(notes), "OMP_NUM_THREADS": "1"}
            nodes = Nodes(place / "cluster", WORKERS, isolated=can_isolate(), env=own)
            how, kinds = (
                ("--engine", "ray", "--address", nodes.address),
                ["worker", "node", "driver"],
            )
        try:
            for what in kinds:
                for moment in range(1, moments + 1):
                    sweep = Sweep(
                        place / "cluster" / "driver" if nodes else place / what, how, notes, nodes
                    )
                    (sweep.folder / "run").mkdir()
                    if what == "disk":
                        _mount("-t", "tmpfs", "-o", "size=16m", "none", str(sweep.folder / "run"))
                    try:
                        rows.append(trial(what, moment, sweep, bytes_alone, usual))
                    finally:
                        if what == "disk":
                            subprocess.run(["umount", sweep.folder / "run"], check=True)  # noqa: S607
                    if nodes:
                        lost = set(range(WORKERS + 1)) - set(nodes.running)
                        for number in lost:
                            nodes.start(number)
                        if lost:
                            nodes.wait_for(WORKERS + 1)
                    sys.stderr.write(f"{json.dumps(rows[-1])}\n")
        finally:
            if nodes:
                nodes.close()
    return [{"engine": engine, **row} for row in rows]


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)  # noqa: S607


def main() -> None:
    """Measure one engine, and keep its rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("engine", choices=["inline", "ray"])
    parser.add_argument("--moments", type=int, default=MOMENTS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    rows = measured(asked.engine, asked.moments)
    content = json.loads(asked.out.read_text()) if asked.out.exists() else {"rows": []}
    others = [row for row in content["rows"] if row["engine"] != asked.engine]
    isolated = asked.engine == "ray" and can_isolate()
    content |= {
        "rows": sorted([*others, *rows], key=lambda row: row["engine"]),
        "machine": machine(),
        "versions": versions(),
        "cells": CELLS,
    }
    if asked.engine == "ray":
        content["nodes"] = {"count": WORKERS, "own_network_and_folder": isolated}
    asked.out.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
