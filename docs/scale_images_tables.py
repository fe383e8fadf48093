"""The tables of docs/large.md: what an attack holds and takes, over images, classes and pixels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def images(path: Path) -> str:
    """Return peak memory and time over images, held whole and streamed."""
    found = json.loads(path.read_text(encoding="utf-8"))
    memory, seconds = found["memory_over_images"], found["time_over_images"]
    names = ("held whole", "streamed")
    heads = [f"Images of {memory['pixels']}", *(f"peak MB, {name}" for name in names)]
    heads += [f"seconds, {name}" for name in names]
    lines = _head(heads)
    for count in sorted(memory[names[0]], key=int):
        cells = [f"{by[name][count]}" for by in (memory, seconds) for name in names]
        lines.append(f"| {int(count):,} | " + " | ".join(cells) + " |")
    counts = np.array(sorted(map(int, seconds["streamed"])))
    taken = np.array([seconds["streamed"][str(count)] for count in counts])
    slope, start = np.polyfit(counts, taken, 1)
    off = abs(slope * counts + start - taken).max()
    line = (
        f"Streamed, a line fits the seconds: {start:.1f} and {1000 * slope:.2f} a thousand images"
    )
    lines += ["", f"{line}; no point is more than {off:.1f} off. {_circumstances(found)}"]
    return "\n".join(lines)


def large(path: Path) -> str:
    """Return what large images took."""
    found = json.loads(path.read_text(encoding="utf-8"))
    told = found["memory_over_images"].get("large")
    if told is None:
        return "Not measured here."
    rows = sorted(((int(count), one) for count, one in told["by"].items()), key=lambda row: row[0])
    values = np.prod(list(map(int, told["pixels"].split("x"))))
    lines = _head([f"Images of {told['pixels']}", "GB of pixels", "peak MB", "seconds"])
    for count, one in rows:
        cells = (f"{count:,}", f"{count * values / 1e9:.2f}", one["peak"], one["seconds"])
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    least, most = (end(one["peak"] for _, one in rows) for end in (min, max))
    grown = (most - least) * 1e3 / (rows[-1][0] - rows[0][0])
    told = f"From the first line to the last the peak grows by {grown:.1f} kB an image, of which "
    told += f"each has {values / 1e3:.0f} kB of pixels."
    lines += ["", f"{told} {_circumstances(found)}"]
    return "\n".join(lines)


def cost(path: Path) -> str:
    """Return what an image costs by the number of classes, and by its size."""
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = []
    for title, section in (("Classes", "cost_over_classes"), ("Pixels", "cost_over_pixels")):
        rows = sorted(found[section].items(), key=lambda row: int(row[0].partition("x")[0]))
        lines += [*_head([title, "milliseconds an image", "peak MB"])]
        lines += [f"| {name} | {one['milliseconds']} | {one['peak']} |" for name, one in rows]
        lines.append("")
    return "\n".join([*lines, _circumstances(found)])


def _head(names: list[str]) -> list[str]:
    return ["| " + " | ".join(names) + " |", "| --- " * len(names) + "|"]


def _circumstances(found: Mapping[str, Any]) -> str:
    versions = found["versions"]
    told = f"purpleteam {versions['purpleteam']}, torch {versions['torch']}"
    return f"One run each, one thread of {found['machine']['processor']}, {told}."


BLOCKS = {"scale_images": images, "scale_images_large": large, "scale_images_cost": cost}
