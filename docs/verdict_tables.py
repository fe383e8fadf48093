"""The tables about verdicts: scans over seeds, clean nets, ladder, loops, kernels, a judge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from purpleteam.report.numbers import percent

__all__ = ["calibration", "judged", "ladder", "loops", "reproducible", "scans"]

LANGUAGE = {
    "backdoored": "**backdoored**",
    "nothing_found": "nothing found",
    "not_established": "not established",
}
RATES = {
    "clean_accused": "Clean models accused",
    "clean_not_established": "Clean models where nothing is established",
    "backdoored_found": "Backdoored models found, with the right target",
    "backdoored_cleared": "Backdoored models where nothing is found",
    "same_verdict_at_every_seed": "Models with the same verdict at every seed so far",
}


def scans(path: Path) -> str:
    """Return what scans say over seeds: the rates, then the verdicts model by model."""
    found = json.loads(path.read_text(encoding="utf-8")).get("backdoors")
    if found is None:
        return "*Not yet measured.*"
    lines = ["| Scans | Share |", "| --- | --- |"]
    rates = found["rates"]
    lines += [f"| {text} | {_rate(rates[name])} |" for name, text in RATES.items() if name in rates]
    said: dict[tuple[str, str], list[str]] = {}
    for one in found["scans"]:
        model, data, _ = one["cell"]
        said.setdefault((model, data), []).append(LANGUAGE[one["verdict"]])
    lines += ["", "| Model | Trusted images | Verdict at each seed |", "| --- | --- | --- |"]
    lines += [
        f"| `{model}` | {data} | {'; '.join(_runs(verdicts))} |"
        for (model, data), verdicts in said.items()
    ]
    return "\n".join(lines) + (
        f"\n\n{len(found['scans'])} of {found['of']} scans were made so far; a scan takes "
        f"{found['cpu_seconds']['median']:.0f} processor seconds (median)."
    )


def calibration(path: Path) -> str:
    """Return what scans say of clean nets of several kinds, and the highest standings."""
    found = json.loads(path.read_text(encoding="utf-8"))
    nets = found["nets"]
    said = [one["verdict"] for one in nets]
    highest = {
        name: max(one["standings"].get(name, 0.0) for one in nets)
        for name in sorted({name for one in nets for name in one["standings"]})
    }
    kinds = sorted({one["net"][0] for one in nets})
    lines = ["| Detector | Highest standing |", "| --- | --- |"]
    lines += [f"| `{name}` | {value:.1f} |" for name, value in highest.items()]
    return "\n".join(lines) + (
        f"\n\n{len(nets)} clean nets on {', '.join(kinds)}: accused {_rate(found['accused'])}; "
        f"{said.count('not_established')} not established."
    )


def ladder(path: Path) -> str:
    """Return what the short ladder and AutoAttack leave of the same images, and at what cost."""
    found = json.loads(path.read_text(encoding="utf-8")).get("ladder")
    if found is None:
        return "*Not yet measured.*"
    lines = ["| Model | Norm | ε | Clean | Ladder | AutoAttack | Difference | Calls |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for one in found["rows"]:
        name, norm, epsilon = one["cell"]
        share = one["ladder"]["calls"] / one["autoattack"]["calls"]
        gap = one["difference"]
        lines.append(
            f"| {name} | {norm} | {epsilon:g} | {_rate(one['clean_accuracy'])} | "
            f"{_rate(one['ladder']['survived'])} | {_rate(one['autoattack']['survived'])} | "
            f"{100 * gap['value']:+.1f} points ({100 * gap['low']:.1f} to "
            f"{100 * gap['high']:.1f}) | {share:.0%} |"
        )
    return "\n".join(lines) + (
        f"\n\nDifference is AutoAttack's robust accuracy taken off the ladder's, image by image; "
        f"calls are the ladder's forward and backward passes beside AutoAttack's, in all "
        f"{found['share_of_calls']:.0%}. {len(found['rows'])} of {found['of']} rows are measured."
    )


def loops(path: Path) -> str:
    """Return what our FGSM and PGD leave beside a bare float32 loop, on each kind of kernels."""
    found = json.loads(path.read_text(encoding="utf-8")).get("loops")
    if found is None:
        return "*Not yet measured.*"
    kernels = found["kernels"]
    columns = [f"{side}, {one} kernels" for one in kernels for side in ("Purpleteam", "Bare loop")]
    lines = ["| " + " | ".join(["Model", "Attack", *columns, "Images that differ"]) + " |"]
    lines.append("| --- " * (len(columns) + 3) + "|")
    for rows in zip(*kernels.values(), strict=True):
        values = [percent(one[side]["value"], 1) for one in rows for side in ("ours", "bare_loop")]
        differ = [
            str(len(one["broken_by_ours_alone"]) + len(one["broken_by_the_loop_alone"]))
            for one in rows
        ]
        cells = [rows[0]["model"], _attack(rows[0]), *values, ", ".join(differ)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + (
        f"\n\nSurvived of {found['images']} test images, at even distances; the same trainings "
        "differ from kernels to kernels by rounding, the loops on the same net do not."
    )


def _attack(one: Mapping[str, Any]) -> str:
    start = {True: ", random start", False: ", from the image", None: ""}[one["random_start"]]
    steps = f", {one['steps']} steps" if one["steps"] > 1 else ""
    return f"{one['attack']} ε = {one['epsilon']:g}{steps}{start}"


def _rate(one: Mapping[str, Any]) -> str:
    low, high = percent(one["low"], 1), percent(one["high"], 1)
    return f"{percent(one['value'], 1)} ({low} to {high}, n = {one['n']})"


def _runs(verdicts: list[str]) -> list[str]:
    """Return each verdict that was given and how often."""
    return [f"{verdicts.count(one)} of {len(verdicts)} {one}" for one in dict.fromkeys(verdicts)]


def reproducible(path: Path) -> str:
    """Return on which processors the same bytes came out, and what that costs."""
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = ["| Processor | Weights | Answers |", "| --- | --- | --- |"]
    lines += [
        f"| {name} | `{one['weights'][7:]}` | `{one['answers'][7:]}` |"
        for name, one in found["found"].items()
        if not name.endswith("again")
    ]
    same = "the same" if found["same_bytes"] else "**not the same**"
    cost = found["times_the_fastest"]
    return "\n".join(lines) + (
        f"\n\nWith `--reproducible` all are {same}, here twice. To train takes "
        f"{cost['training']:g} times the processor time of the fastest kernels, to attack "
        f"{cost['attack']:g} times. Here is {found['machine']['processor_name']}; torch "
        f"{found['versions']['torch']}."
    )


def judged(path: Path) -> str:
    """Return our verdicts beside another verifier's, net by net."""
    found = json.loads(path.read_text(encoding="utf-8"))
    words = ("unsat", "sat", "timeout", "unknown")
    lines = [f"| Net, ε in linf | Ours | {' | '.join(words)} |", "| --- " * 6 + "|"]
    for name, net in found["nets"].items():
        for kind, said in net["counts"].items():
            cells = " | ".join(str(said.get(word, 0)) for word in words)
            lines.append(f"| {name}, {net['epsilon']:g} | {kind} | {cells} |")
    nets = found["nets"].values()
    shown, falsified = (
        sum(one["counterexamples_shown"] for one in nets),
        sum(sum(one["counts"].get("falsified", {}).values()) for one in nets),
    )
    false = sum(len(one["false_witnesses"]) for one in nets)
    judge, runtime = found["judge"], found["versions"]["onnxruntime"]
    slowest = max(one["median_seconds"] for one in nets)
    return "\n".join(lines) + (
        f"\n\n{found['instances']} instances, {found['contradictions']} contradictions. Columns: "
        f"vibecheck-nn {judge['vibecheck-nn']}, {found['timeout']} s each (median {slowest:.1f} s "
        f"on the slowest net); {false} of its counterexamples were none in ONNX Runtime {runtime}, "
        f"and {shown} of our {falsified} were one. torch {judge['torch']}, onnx {judge['onnx']}."
    )
