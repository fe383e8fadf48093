"""What was measured of the served app: what it reads and refuses, records and lives through."""

from __future__ import annotations

import json
import statistics
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


def audit(path: Path) -> str:
    """Return how fast records are written and verified."""
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = ["| Writer | At once | Records a second | A second of processor time |"]
    lines += ["| --- " * 4 + "|"]
    lines += [
        f"| {one['writer']} | {one['tasks']} | {one['records_per_second']:,} | "
        f"{one['records_per_cpu_second']:,} |"
        for one in found["writing"]
    ]
    verified = found["verifying"]
    return "\n".join(lines) + (
        f"\n\n{verified['lines']:,} records, {verified['bytes'] / 1e6:.0f} MB, are verified in "
        f"{verified['seconds']:.1f} s ({verified['cpu_seconds']:.1f} s of processor time), with "
        f"{verified['peak_megabytes']} MB of memory. {found['machine']['cores']} cores, load "
        f"{found['load']:.0f} of other work."
    )


def signing(path: Path) -> str:
    """Return how long a model takes to sign and to verify, and which flipped bytes are caught."""
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = ["| Key | Form | Sign | Verify | Both, of a new process |", "| --- " * 5 + "|"]
    lines += [
        f"| {one['key']} | {one['form']} | {one['sign_ms']:.1f} ms | {one['verify_ms']:.1f} ms | "
        f"{one['first_ms']:.0f} ms |"
        for one in found["rows"]
    ]
    flips = found["flips"]
    return "\n".join(lines) + (
        f"\n\nMedians for a model of {found['bytes'] / 1e6:.0f} MB. Of {flips['tried']:,} flipped "
        f"bytes of signatures, cards, weights and ONNX files {flips['caught']:,} were caught. "
        f"{found['machine']['cores']} cores, load {found['load']:.0f} of other work."
    )


def restart(path: Path) -> str:
    """Return how long the app was away when workers were killed under load, and who noticed."""
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = {**found["rows"]}
    asked = rows.pop("both replaced as asked")
    lines = ["| Killed | Away, at most | Answered | Wrong | Cut | Refused | Memory of all |"]
    lines += ["| --- " * 7 + "|"]
    lines += [
        f"| {name}, {len(one['seconds_away'])} times | {max(one['seconds_away']):.2f} s | "
        f"{one['answered']:,} | {one['wrong']} | {one['cut']} | {one['refused']} | "
        f"{one['megabytes']:.0f} MB |"
        for name, one in rows.items()
    ]
    lost = sum(asked[name] for name in ("wrong", "cut", "refused"))
    costs = [one["cpu_seconds_of_a_start"] for one in rows.values()]
    return "\n".join(lines) + (
        f"\n\nAway: from SIGKILL to the first answer to what was asked after it. Memory: of parent "
        f"and workers, what they share counted once. {asked['replaced']} workers were replaced as "
        f"asked (SIGHUP): {asked['answered']:,} answers, {lost} lost. A worker's start takes "
        f"{min(costs):.2f} to {max(costs):.2f} s of processor time. {found['cores']} cores, load "
        f"{found['load']:.0f} of other work, before which this went (niceness {found['niceness']})."
    )


def serve(path: Path) -> str:
    """Return what a guarded prediction costs, how the app starts, and how it fares in a flood."""
    found = json.loads(path.read_text(encoding="utf-8"))
    costs = found["cost"]["cpu_microseconds"]
    floor = statistics.median(costs["floor"])
    names = {
        "floor": "a bare ASGI application and the inference",
        "guarded": "`purple serve`, audit log and access log on",
        "unaudited": "the same without audit log",
        "flask": "a naive Flask app: PNG, torch on one thread",
        "gradio": "a naive Gradio app: the same, by its HTTP API",
    }
    lines = ["| Server | Processor time of a prediction | Times the first |", "| --- " * 3 + "|"]
    for name, values in costs.items():
        median = statistics.median(values)
        lines.append(f"| {names[name]} | {median:,.0f} us | {median / floor:.1f} |")
    start, flood = found["start"], found["flood"]
    seconds, memory = start["seconds_to_ready"], start["resident_mb"]
    turns, each = len(costs["floor"]), found["cost"]["predictions"]
    ready, megabytes = statistics.median(seconds), statistics.median(memory)
    quiet, flooded = flood["quiet_p99_ms"], flood["flooded_p99_ms"]
    sent, refused = flood["flood"]["sent"], flood["flood"]["refused"]
    return "\n".join(lines) + (
        f"\n\nMedians of {turns} turns of {each:,}, 16 connections, the whole process tree. From "
        f"start to ready {ready:.2f} s (median of {len(seconds)}), {megabytes:.0f} MB. A polite "
        f"client's p99 is {quiet} ms, and {flooded} ms while another asks ten times what it may "
        f"({refused:,} of {sent:,} refused). {found['machine']['cores']} cores, load "
        f"{found['load']:.1f}."
    )
