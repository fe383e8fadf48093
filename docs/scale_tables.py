"""The tables of docs/sweeps.md: what a cell costs beside its work, what a million would take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CELLS, MACHINES = 1_000_000, 1_000
CORES, PRICE = 8, 0.05
"""Assumed: cores of a machine, a worker on each; dollars for a core and an hour."""
SECONDS = (10.0, 60.0)
"""Work of a cell for which it is told too, beside what was measured."""


def scale(path: Path) -> str:
    """Return what a sweep takes by each engine, and what its driver takes."""
    found = json.loads(path.read_text(encoding="utf-8"))
    measured, counts = found["engines"], found["driver"]
    by = measured["by"]
    names = [name for name in next(iter(by.values())) if name not in ("done",)]
    lines = [f"| Of {measured['cells']} cells | " + " | ".join(names) + " |"]
    lines += ["| --- " * (len(names) + 1) + "|"]
    for engine, one in by.items():
        lines.append(f"| {engine} | " + " | ".join(str(one[name]) for name in names) + " |")
    told = list(dict.fromkeys(name for one in counts.values() for name in one))
    lines += ["", "The driver alone, where cells take no time:", ""]
    lines += ["| Cells | " + " | ".join(told) + " |", "| --- " * (len(told) + 1) + "|"]
    for count, one in sorted(counts.items(), key=lambda item: int(item[0])):
        shown = (str(one.get(name, "not measured")) for name in told)
        lines.append(f"| {int(count):,} | " + " | ".join(shown) + " |")
    return "\n".join([*lines, "", f"One run each, {found['machine']['cores']} cores."])


def kills(path: Path) -> str:
    """Return what became of sweeps that were struck: a line for each engine and what was struck."""
    found = json.loads(path.read_text(encoding="utf-8"))
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in found["rows"]:
        groups.setdefault((row["engine"], row["struck"]), []).append(row)
    names = ["Engine", "Struck", "Moments", "ended with the same records and table"]
    names += ["kept cells that were lost or done again", "commands", "answers of the net lost"]
    lines = ["| " + " | ".join(names) + " |", "| --- " * len(names) + "|"]
    for (engine, struck), rows in sorted(groups.items()):
        hit = [row for row in rows if row["hit"]]
        same = sum(row["same_records"] and row["same_table"] for row in hit)
        again = sum(row["kept_and_done_again"] for row in hit)
        most = max(row["commands"] for row in hit)
        lost = [max(0, row["answers_lost"]) for row in hit]
        cells = [engine, struck, str(len(hit)), f"{same} of {len(hit)}", str(again), str(most)]
        lines.append("| " + " | ".join([*cells, f"{min(lost)} to {max(lost)}"]) + " |")
    where = "in network namespaces of their own, without a shared folder"
    nodes = found.get("nodes", {})
    told = where if nodes.get("own_network_and_folder") else "processes of one host"
    ends = f"Nodes of Ray: {nodes.get('count', 0)} and a head, {told}." if nodes else ""
    whole = f"A sweep of {found['cells']} cells in two workers; a cell asks its net seven times."
    return "\n".join([*lines, "", f"{whole} {ends}".strip()])


def million(path: Path) -> str:
    """Return what a million cells on a thousand machines take and cost, and what ends first."""
    found = json.loads(path.read_text(encoding="utf-8"))
    ray = found["engines"]["by"]["ray, two workers"]
    work = ray["milliseconds of work a cell, median"] / 1000
    beside = max(0.0, ray["milliseconds beside it, a cell"]) / 1000
    count, driver = max(found["driver"].items(), key=lambda item: int(item[0]))
    workers, needs = MACHINES * CORES, driver["milliseconds of processor a cell"] / 1000 + beside
    names = ["Work of a cell", "core-hours", "cost, dollars", "workers alone need, hours"]
    names += [
        "the driver needs, hours",
        "the sweep takes, hours",
        "workers that a driver keeps busy",
    ]
    lines = ["| " + " | ".join(names) + " |", "| --- " * len(names) + "|"]
    for seconds in (work, *SECONDS):
        busy = (seconds + beside) * CELLS / 3600
        alone, driving = busy / workers, needs * CELLS / 3600
        cells = [f"{seconds:.2g} s" + (", as measured" if seconds == work else "")]
        cells += [f"{busy:,.0f}", f"{busy * PRICE:,.0f}", f"{alone:.2g}", f"{driving:.2g}"]
        cells += [f"{max(alone, driving):.2g}", f"{seconds / needs:,.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", _said(driver, count, workers)])


def _said(driver: Mapping[str, Any], count: str, workers: int) -> str:
    measured = "" if int(count) == CELLS else f", scaled from {int(count):,}"
    scaled = CELLS / int(count)
    memory = driver["peak megabytes"] / 1000
    records = driver["megabytes of records"] * scaled / 1000
    return (
        f"Computed for {CELLS:,} cells and {workers:,} workers: {MACHINES:,} machines of {CORES} "
        f"cores, at {PRICE:g} dollars for a core and an hour, both assumed; work and overhead of a "
        f"cell from the tables above, the overhead counted for the driver too. The driver held "
        f"{memory:.1f} GB{measured} and wrote {records:.1f} GB of records."
    )
