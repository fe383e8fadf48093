"""The tables about certificates: certified accuracy row by row, cost, and what a judge says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import purpleteam.report
from purpleteam.report.figures import Series, curves
from purpleteam.report.numbers import percent
from purpleteam.report.view import Number

__all__ = ["front", "front_picture", "judged", "rows", "speed"]

OUTCOMES = ("verified", "falsified", "unknown")
METHODS = {"ibp": "IBP", "crown_ibp": "IBP, CROWN-IBP", "alpha_crown": "the whole cascade"}


def rows(path: Path) -> str:
    """Return each trained model, then mean and t interval over the seeds of a row."""
    told = json.loads(path.read_text("utf-8"))
    if not told["rows"]:
        return "*Not yet measured.*"
    lines = [
        "| Row | Seed | ε | Clean | Certified | Attacked | Verified, falsified, unknown "
        "| Training, CPU s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in told["rows"].values():
        counts = [f"{one['counts'][kind]:,}" for kind in OUTCOMES] if "counts" in one else []
        radius = f"{one['plan']['epsilon']:g}" if "epsilon" in one["plan"] else ""
        lines.append(
            f"| `{one['row']}` | {one['seed']} | {radius} | {_rates(one)} | "
            f"{', '.join(counts)} | {_seconds(one['training_cpu_seconds'])} |"
        )
        beside = {
            f"test digits {name}": rates for name, rates in one.get("second_sets", {}).items()
        }
        if "without_ramp" in one:
            beside = {"weights without the ramp": one["without_ramp"]} | beside
        lines += [
            f"| the same, {name} | | | {_rates(found)} | | |" for name, found in beside.items()
        ]
    said = [
        f"`{name}` over {found['clean_accuracy']['n']} seeds: "
        + ", ".join(f"{key.partition('_')[0]} {_rate(found[key])}" for key in sorted(found))
        for name, found in told.get("summary", {}).items()
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
        f"| {METHODS[name]} | {cost['cpu_seconds']:.2f} |"
        for name, cost in told["images_10000"].items()
    ]
    return "\n".join(lines) + (
        f"\n\nOne thread, `{told['model']}` at ε = {told['epsilon']:g}; at most "
        f"{told['peak_megabytes']:,} MB. Ratios of processor time on 500 images: {ratios}."
    )


def front(path: Path) -> str:
    """Return clean and certified accuracy of each recipe at each of its weights."""
    points = json.loads(path.read_text("utf-8"))["points"].values()
    shared = next(iter(points))
    lines = [
        "| ε | Recipe | Clean | Certified | Training, CPU s |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {one['epsilon']:g}{', ramp' if one['ramp'] else ''} | `{one['weight']}` | "
        f"{_rate(one['clean_accuracy'])} | {_rate(one['certified_accuracy'])} | "
        f"{_seconds(one['training_cpu_seconds'])} |"
        for one in sorted(points, key=lambda one: (one["epsilon"], one["place"]))
    ]
    pictures = [
        f"![Clean against certified accuracy at {radius:g}](images/front-{radius:g}.svg)"
        for radius in sorted({one["epsilon"] for one in points})
    ]
    told = (
        f"Each trained once, seed {shared['seed']}, on {shared['images']:,} images for "
        f"{shared['epochs']} epochs, and certified on the first {shared['tested']:,} test images: "
        "short trainings, to compare recipes by. What certifies less than half of the best is "
        "in the table alone."
    )
    return "\n\n".join(["\n".join(pictures), told, "\n".join(lines)])


def front_picture(path: Path, radius: float) -> str:
    """Return certified over clean accuracy as an SVG image of its own, in both colour schemes."""
    points = json.loads(path.read_text("utf-8"))["points"].values()
    here = [one for one in points if one["epsilon"] == radius]
    best = max((one["certified_accuracy"]["value"] for one in here), default=0.0)
    here = [one for one in here if one["certified_accuracy"]["value"] >= best / 2]
    by_recipe: dict[str, dict[float, Number]] = {}
    for one in sorted(here, key=lambda one: (one["weight"], one["clean_accuracy"]["value"])):
        found = one["certified_accuracy"]
        ends = found["low"], found["high"]
        number = Number(text="", value=found["value"], records=("",), ends=ends)
        recipe = one["weight"].partition(":")[0]
        by_recipe.setdefault(recipe, {})[one["clean_accuracy"]["value"]] = number
    low = min((one["certified_accuracy"]["low"] for one in here), default=0.0)
    high = max((one["certified_accuracy"]["high"] for one in here), default=1.0)
    drawn = curves(
        f"Certified accuracy at {radius:g} over clean accuracy",
        "One line for each recipe, one point for each of its weights; bands are 95 % intervals.",
        [
            Series(label=name, points=dict(sorted(line.items())), colour=colour)
            for colour, (name, line) in enumerate(by_recipe.items(), 1)
        ],
        x_label="clean accuracy",
        y_label="certified accuracy",
        over=(math.floor(25 * low) / 25, math.ceil(25 * high) / 25),
    )
    style = (Path(purpleteam.report.__file__).parent / "templates/report.css").read_text("utf-8")
    colours, rules = (
        style[: style.index("\n* {")],
        [line for line in style.splitlines() if line.startswith("svg ")],
    )
    own = "svg { font: 13px var(--sans); fill: currentColor; color: var(--ink); }"
    css = "\n".join([colours, own, *rules])
    image = str(drawn).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return image.replace("<title>", f"<style>{css}</style><title>", 1) + "\n"


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


def _rates(told: dict[str, Any]) -> str:
    kinds = ("clean", "certified", "robust")
    found = [told.get(f"{kind}_accuracy") for kind in kinds]
    return " | ".join("" if rate is None else _rate(rate) for rate in found)


def _rate(value: dict[str, Any]) -> str:
    low, high = (percent(value[end], 2) for end in ("low", "high"))
    count = f", n = {value['n']:,}" if value["method"] == "clopper-pearson" else ""
    return f"{percent(value['value'], 2)} ({low} to {high}{count})"
