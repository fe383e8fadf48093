"""The tables about attacks on the served model by queries, and about adversarial inputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from purpleteam.core.statistics import Rate
from purpleteam.report.numbers import percent

__all__ = ["attackers", "copies", "inputs", "inputs_known", "people"]

PEOPLE = tuple(
    f"{how}{what}" for how in ("pen up", "live preview") for what in ("", ", the same digit")
)
UNTOLD = (  # rows that repeat the one before
    *(f"within the box, {parts} natural digits before each" for parts in (4, 9)),
    "within the box, by 40 clients",
)
DETECTORS = ("none", "squeeze", "second model", "box", "none, robust-0.3 served")


def people(path: Path) -> str:
    """Return how often honest sessions raise an alarm, beside PRADA on the same kinds."""
    found = json.loads(path.read_text(encoding="utf-8"))
    prada = {one["kind"]: one["alarmed"] for one in found["prada"]}
    lines = ["| Honest sessions | With an alarm | Under PRADA |", "| --- " * 3 + "|"]
    drawn = [one["alarmed"] for one in found["honest"] if one["kind"] in PEOPLE]
    rows = [{"kind": "**all who draw**", "alarmed": _pooled(drawn)}, *found["honest"]]
    lines += [
        f"| {one['kind']} | {_rate(one['alarmed'])} | {_rate(prada.get(one['kind']))} |"
        for one in rows
    ]
    return "\n".join(lines) + (
        f"\n\nSimulated with MNIST's test images; a session has 1 to 50 digits. A query costs "
        f"{found['microseconds']:.0f} microseconds of processor time, the history full; "
        f"{found['machine']['processor']}. PRADA's threshold is its paper's, 0.95."
    )


def attackers(path: Path) -> str:
    """Return how often attackers are detected, when, and what they got before."""
    found = json.loads(path.read_text(encoding="utf-8"))
    head = "| Model | Attack | How | Detected | Queries to the alarm | Broken before it, of tried |"
    lines = [head, "| --- " * 6 + "|"]
    bare = [one for one in found["attacks"] if one["how"] == "as it is"]
    total = _rate(_pooled([one["detected"] for one in bare]))
    lines += [f"| **both** | **all of these** | as it is | {total} | | |"]
    lines += [
        f"| {one['model']} | {one['attack']} | {one['how']} | {_rate(one['detected'])} | "
        f"{_count(one['queries_to_alarm'])} | "
        f"{one['broken_before_alarm']} ({one['broken']} in all) of {one['tried']} |"
        for one in found["attacks"]
        if one["how"] not in UNTOLD
    ]
    return "\n".join(lines)


def copies(path: Path) -> str:
    """Return who trains a copy unseen, and how good copies from labels alone are."""
    found = json.loads(path.read_text(encoding="utf-8"))
    prada = {one["kind"]: one["alarmed"] for one in found["prada"]}
    lines = ["| Queries of a copy | Detected | After | Under PRADA |", "| --- " * 4 + "|"]
    lines += [
        f"| {one['kind']} | {_rate(one['detected'])} | {_count(one['queries_to_alarm'])} | "
        f"{_rate(prada.get(one['kind']))} |"
        for one in found["extraction"]
    ]
    lines += [
        "",
        "| Labels of other people's digits | Says what the model says |",
        "| --- " * 2 + "|",
    ]
    for one in found["clones"]:
        agreed = "; ".join(percent(rate["value"], 1) for rate in one["agreement"])
        lines += [f"| {one['queries']:,} | {agreed} |"]
    n = found["clones"][0]["agreement"][0]["n"]
    return "\n".join(lines) + f"\n\nOf {n:,} test images, one number for each seed."


def inputs(path: Path) -> str:
    """Return what detectors of single images flag of clean ones, and of attacks unaware of them."""
    found = json.loads(path.read_text(encoding="utf-8"))
    names = list(dict.fromkeys(one["detector"] for one in found["false_alarms"]))
    flagged = {(one["images"], one["detector"]): one["flagged"] for one in found["false_alarms"]}
    cost = found["microseconds"]
    lines = [f"| | {' | '.join(names)} |", "| --- " * (len(names) + 1) + "|"]
    costs = " | ".join(f"{cost[name]:.0f} µs" for name in names)
    lines += [f"| costs, beside {cost['answer']:.0f} µs for the answer | {costs} |"]
    for images in dict.fromkeys(one["images"] for one in found["false_alarms"]):
        shown = " | ".join(_rate(flagged[images, name]) for name in names)
        lines += [f"| flags of clean {images} | {shown} |"]
    for one in found["unknowing"]:
        epsilon = f" {one['epsilon']:g}" if "epsilon" in one else ""
        attack = f"{one['attack']} {one.get('norm', 'linf' if epsilon else 'l2')}{epsilon}"
        shown = " | ".join(_rate(one[name]) for name in names)
        misread = percent(one["wrong"]["value"], 0)
        lines += [f"| flags of the {misread} misread under {attack} | {shown} |"]
    return "\n".join(lines)


def inputs_known(path: Path) -> str:
    """Return how often an attacker who knows the detector is misread and not seen."""
    found = json.loads(path.read_text(encoding="utf-8"))["knowing"]
    unseen = {(one["norm"], one["epsilon"], one["detector"]): one["unseen"] for one in found}
    names = [name for name in DETECTORS if any(key[2] == name for key in unseen)]
    lines = [f"| Ball | {' | '.join(names)} |", "| --- " * (len(names) + 1) + "|"]
    for norm, epsilon in dict.fromkeys((one["norm"], one["epsilon"]) for one in found):
        shown = " | ".join(_rate(unseen[norm, epsilon, name]) for name in names)
        lines += [f"| {norm} {epsilon:g} | {shown} |"]
    return "\n".join(lines)


def _pooled(rates: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the rate over all sessions."""
    successes = sum(round(one["value"] * one["n"]) for one in rates)
    return Rate.of(successes, sum(one["n"] for one in rates)).to_json()


def _rate(rate: Mapping[str, Any] | None) -> str:
    if rate is None:
        return "—"
    low, high = (100 * rate[end] for end in ("low", "high"))
    return f"{percent(rate['value'], 1)} ({low:.1f}-{high:.1f}, n={rate['n']})"


def _count(number: float | None) -> str:
    return "—" if number is None else f"{number:,.0f}"
