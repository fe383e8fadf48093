"""The tables about certificates: certified accuracy row by row, cost, and what a judge says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from purpleteam.report.numbers import percent

__all__ = ["judged", "rows", "speed"]

METHODS = {"ibp": "IBP", "crown_ibp": "IBP, CROWN-IBP", "alpha_crown": "the whole cascade"}


def rows(path: Path) -> str:
    """Return each trained model, then mean and t interval over the seeds of a row."""
    told = json.loads(path.read_text("utf-8"))
    if not told["rows"]:
        return "*Not yet measured.*"
    lines = [
        "| Row | Seed | ε | Clean | Certified | Verified, falsified, unknown | Training, CPU s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in told["rows"].values():
        counts = ", ".join(
            f"{one['counts'][kind]:,}" for kind in ("verified", "falsified", "unknown")
        )
        lines.append(
            f"| `{one['row']}` | {one['seed']} | {one['plan']['epsilon']:g} | "
            f"{_rate(one['clean_accuracy'])} | {_rate(one['certified_accuracy'])} | {counts} | "
            f"{_seconds(one['training_cpu_seconds'])} |"
        )
        if (bare := one.get("without_ramp")) is not None:
            clean, certified = (_rate(bare[f"{kind}_accuracy"]) for kind in ("clean", "certified"))
            lines.append(f"| the same weights without the ramp | | | {clean} | {certified} | | |")
        if (second := one.get("second_set")) is not None:
            clean, certified = (
                _rate(second[f"{kind}_accuracy"]) for kind in ("clean", "certified")
            )
            lines.append(f"| the same, on digits drawn anew | | | {clean} | {certified} | | |")
    said = [
        f"`{name}` over {key['certified_accuracy']['n']} seeds: certified "
        f"{_rate(key['certified_accuracy'])}, clean {_rate(key['clean_accuracy'])}"
        for name, key in told.get("summary", {}).items()
    ]
    few = (
        "" if said else "\n\nOne seed a row so far: published points differ by less than seeds do."
    )
    return "\n".join(lines) + ("\n\n" + "; ".join(said) + "." if said else few)


def speed(path: Path) -> str:
    """Return processor time of 500 images, ratios, and what 10,000 images take."""
    told = json.loads(path.read_text("utf-8")).get("speed")
    if told is None:
        return "*Not yet measured.*"
    ratios = "; ".join(f"{name}: {value:g}" for name, value in told["ratios"].items())
    lines = ["| 10,000 test images | Processor seconds |", "| --- | --- |"]
    lines += [
        f"| {METHODS[name]} | {cost['cpu_seconds']:.1f} |"
        for name, cost in told["images_10000"].items()
    ]
    return "\n".join(lines) + (
        f"\n\nOne thread, `{told['model']}` at ε = {told['epsilon']:g}; at most "
        f"{told['peak_megabytes']:,} MB. Ratios of processor time on 500 images: {ratios}."
    )


def judged(path: Path) -> str:
    """Return what another verifier says of what is verified, falsified and left open here."""
    told = json.loads(path.read_text("utf-8"))
    lines = [
        "| Net | ε | Verified here, `unsat` there | Falsified, `sat` | Left open: `unsat`, none |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, net in told["nets"].items():
        counts = net["counts"]
        verified, falsified, unknown = (
            counts.get(kind, {}) for kind in ("verified", "falsified", "unknown")
        )
        open_ = sum(count for word, count in unknown.items() if word not in ("sat", "unsat"))
        lines.append(
            f"| {name} | {net['epsilon']:g} | {verified.get('unsat', 0)} of "
            f"{sum(verified.values())} | {falsified.get('sat', 0)} of {sum(falsified.values())} | "
            f"{unknown.get('unsat', 0)}, {open_} of {sum(unknown.values())} |"
        )
    judge = told["judge"]
    return "\n".join(lines) + (
        f"\n\n{told['instances']} instances, {told['contradictions']} contradictions; the judge is "
        f"vibecheck-nn {judge['vibecheck-nn']}, a verifier that shares no code with ours."
    )


def _seconds(value: float | None) -> str:
    return "not kept" if value is None else f"{value:,.0f}"


def _rate(value: dict[str, Any]) -> str:
    low, high = (percent(value[end], 2) for end in ("low", "high"))
    return f"{percent(value['value'], 2)} ({low} to {high})"
