"""The table of docs/sweeps.md: what a cell costs beside its work."""

from __future__ import annotations

import json
from pathlib import Path


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
    rows = [
        f"{int(count):,}: {one['milliseconds a cell']} ms a cell, {one['peak megabytes']} MB at "
        f"most, a page of {one['megabytes of the page']} MB"
        for count, one in counts.items()
    ]
    cores = found["machine"]["cores"]
    said = "The driver alone, of so many cells that take no time: " + "; ".join(rows)
    return "\n".join([*lines, "", f"{said}. One run each, {cores} cores."])
