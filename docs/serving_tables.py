"""What the app reads and what it refuses, from results/drawn_digits.json and refusal.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DIGITS = ("MNIST", "digits, drawn", "digits, drawn from print", "digits, printed")
OTHERS = ("letters, drawn", "letters, printed", "shapes", "scribbles", "blots")


def _rate(one: dict[str, Any], key: str = "refused") -> str:
    low, high = (f"{100 * end:.1f}" for end in one["interval"])
    return f"{100 * one[key] / one['n']:.1f} % ({low} to {high})"


def refusal(path: Path) -> str:
    """Return the share of each kind of drawing that gets no label, by model."""
    found = json.loads(path.read_text(encoding="utf-8"))
    models = dict(sorted(found["models"].items(), reverse=True))
    heads = [*models, *(f"{name}, plain rules alone" for name in models)]
    lines = ["| No label is told | Drawings | " + " | ".join(heads) + " |"]
    lines += ["| --- | --- |" + " --- |" * len(heads)]
    kinds = next(iter(models.values()))["test"]
    for kind in (*DIGITS, *OTHERS, *(one for one in kinds if one not in DIGITS + OTHERS)):
        rates = [_rate(one["test"][kind]) for one in models.values()]
        rates += [_plain(one["by the rules alone"][kind]) for one in models.values()]
        lines.append(f"| {kind} | {kinds[kind]['n']:,} | " + " | ".join(rates) + " |")
    return "\n".join(lines) + "\n\n" + _circumstances(found) + "\n\n" + _methods(models)


def _plain(one: dict[str, Any]) -> str:
    return f"{100 * one['refused'] / one['n']:.1f} %"


def _circumstances(found: dict[str, Any]) -> str:
    look_alikes = " ".join("".join(found["look_alikes"].values()).replace("|", ""))
    return (
        "Fonts (but those of the scripts never taught), shapes, scribbles and blots of the "
        "measurement are in no image that the second net learnt from or that the thresholds were "
        "chosen by. Look-alikes are, among letters and "
        f"signs, `{look_alikes}` and the upright bar; they were taught as nothing."
    )


def _methods(models: dict[str, Any]) -> str:
    """Return how the scores compare, each at a threshold of its own, on the validation split."""
    methods = next(iter(models.values()))["validation"]
    lines = ["| Score | " + " | ".join(models) + " |", "| --- |" + " --- |" * len(models)]
    for method in methods:
        cells = [f"{100 * one['validation'][method]['mean']:.1f} %" for one in models.values()]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + (
        "\n\nMean share of the five kinds of non-digits of the validation split that get no label, "
        "each score at the threshold that refuses as many digits."
    )


def drawn_digits(path: Path) -> str:
    """Return the share of digits that are read right, by how they were drawn, by model."""
    found = json.loads(path.read_text(encoding="utf-8"))
    models = sorted(found["models"], reverse=True)
    lines = ["| Read right | Digits | " + " | ".join(models) + " |"]
    lines += ["| --- | --- |" + " --- |" * len(models)]
    for one in found["rows"]:
        cells = [_rate({**one["read"][name], "n": one["n"]}, "right") for name in models]
        lines.append(f"| {one['case']} | {one['n']:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + (
        "\n\nWhat gets no label counts as not read. `as painted` is the drawing as it stands on "
        "the canvas, `fitted` what the page makes of its lines. Intervals are 95 %."
    )
