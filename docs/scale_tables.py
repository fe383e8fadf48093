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
    told = list(next(iter(counts.values())))
    lines += ["", "The driver alone, where cells take no time:", ""]
    lines += ["| Cells | " + " | ".join(told) + " |", "| --- " * (len(told) + 1) + "|"]
    for count, one in counts.items():
        lines.append(f"| {int(count):,} | " + " | ".join(str(one[name]) for name in told) + " |")
    return "\n".join([*lines, "", f"One run each, {found['machine']['cores']} cores."])
