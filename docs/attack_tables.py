"""The tables about attacks: what they left standing, what they cost, which there are."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from purpleteam.core.records import Measurement, record_from_json
from purpleteam.report.collect import model_name
from purpleteam.report.markdown import table
from purpleteam.report.numbers import number_of
from purpleteam.report.view import DASH, Table, row

__all__ = ["ladder", "registry", "shortly", "speed", "summary"]

WORST = "worst case over the ladder"
PAPER = re.compile(r"\([^()]*arXiv:[^()]*\)")
TOLD = ("fgsm", "pgd:steps=40", "pgd:steps=100,restarts=10", "autoattack", WORST)
"""The rows of the summary: four attacks, and all together."""


def ladder(path: Path) -> str:
    """Return what each attack left of the shipped models, and how near it came."""
    found = json.loads(path.read_text(encoding="utf-8"))
    measured = [record_from_json(one) for one in found["records"]]
    records = [one for one in measured if isinstance(one, Measurement)]
    parts = [_ladder_table([one for one in records if _compared(one)])]
    alone = [one for one in records if one.name == "robust_accuracy"]
    parts.append(_others_table([one for one in alone if not one.how.get("same_images")]))
    parts.append(_peers_table([one for one in records if one.name == "cross_check_difference"]))
    parts += [_cost(one) for one in alone if _is_whole(one)]
    run = found["run"]
    parts.append(
        f"Seed 0, purpleteam {run['versions']['purpleteam']}, torch {run['versions']['torch']}, "
        f"{run['machine']['system']} {run['machine']['processor']}, {run['threads']} thread. "
        "Intervals are 95 %."
    )
    return "\n\n".join(parts)


def _compared(one: Measurement) -> bool:
    """Say whether it is one of the rates that were taken on the same images of one model."""
    return bool(one.how.get("same_images")) and model_name(one) == "robust-0.3"


def _is_whole(one: Measurement) -> bool:
    """Say whether it is AutoAttack on the hardened model, on all the images that were asked for."""
    asked = (model_name(one), one.how["case"], one.how["norm"])
    return asked == ("robust-0.3", "autoattack", "linf") and not one.how.get("same_images")


def _cost(one: Measurement) -> str:
    n, cost = one.value.n, one.cost
    return (
        f"AutoAttack on {n:,} images of {model_name(one)}: {cost['forward'] / n:,.0f} forward and "
        f"{cost['backward'] / n:,.0f} backward passes an image, at most "
        f"{one.detail['peak_megabytes']:,} MB of memory in the process that ended it."
    )


def _ladder_table(records: list[Measurement]) -> str:
    ordered = sorted(records, key=lambda one: -number_of(one).value)
    rows = tuple(
        row(one.how["case"], _members(one), number_of(one), _an_image(one), _verdict(one))
        for one in ordered
    )
    columns = (
        "Attack",
        "What it consists of",
        "Robust accuracy",
        "Model calls an image",
        "Verdict",
    )
    caption = "robust-0.3 under each attack by itself: MNIST's test images, ε = 0.3 in linf"
    return "\n".join(table(Table(caption=caption, columns=columns, rows=rows))).strip()


def _others_table(others: list[Measurement]) -> str:
    others = sorted(others, key=lambda one: (model_name(one), str(one.how["norm"])), reverse=True)
    rows = tuple(
        row(
            model_name(one),
            f"{one.how['norm']}, ε = {one.how['epsilon']:g}",
            one.how["case"],
            number_of(one),
            _distance(one),
            _verdict(one),
        )
        for one in others
    )
    columns = ("Model", "Ball", "Attack", "Robust accuracy", "Median distance", "Verdict")
    caption = "Every case by itself: both models, all balls, how near the nearest example is"
    return "\n".join(table(Table(caption=caption, columns=columns, rows=rows))).strip()


def _peers_table(records: list[Measurement]) -> str:
    """Return our attacks beside the same ones of other libraries."""
    lines = ["| Model | Attack | Images | Ours | The same in | Theirs | |", "| --- " * 7 + "|"]
    for one in records:
        found = one.detail
        ours, theirs = (f"{100 * found[side]['value']:.1f} %" for side in ("ours", "theirs"))
        word = "agree" if found["agrees"] else "**disagree**"
        lines.append(
            f"| {model_name(one)} | {one.how['attack']} | {found['ours']['n']:,} | {ours} "
            f"| {one.how['peer']} | {theirs} | {word} |"
        )
    if len(lines) == 2:
        return "Not yet compared with other libraries."
    return "\n".join(lines) + (
        "\n\nLeft standing of the first test images. *Agree*: the difference, image by "
        "image, can be sampling and a rounding of 0.3 points."
    )


def _members(one: Measurement) -> str:
    """Return what still stood after each part of an ensemble."""
    parts = [part for row_ in one.detail.get("attacks", ()) for part in row_.get("members", ())]
    return ", ".join(f"{p['name']} {100 * p['survived']['value']:.2f} %" for p in parts) or DASH


def _an_image(one: Measurement) -> str:
    calls = one.detail.get("calls")
    return DASH if calls is None else f"{calls:,.0f}"


def _distance(one: Measurement) -> str:
    found = one.detail.get("median_distance")
    return DASH if found is None else f"{found:.4g}"


def _verdict(one: Measurement) -> str:
    sound = one.detail.get("soundness")
    return DASH if sound is None else str(sound["verdict"]).replace("_", " ")


def summary(path: Path) -> str:
    """Return one model under four attacks and all together, without records."""
    found = json.loads(path.read_text(encoding="utf-8"))
    measured = [record_from_json(one) for one in found["records"]]
    lines = ["| robust-0.3 under | Robust accuracy | Verdict |", "| --- " * 3 + "|"]
    lines += [
        f"| {one.how['case']} | {shortly(one)} | {_verdict(one)} |"
        for one in measured
        if isinstance(one, Measurement) and _compared(one) and one.how["case"] in TOLD
    ]
    return "\n".join(lines) + (
        "\n\nε = 0.3 in linf, the first 1,000 test images, which are no random sample."
    )


def shortly(one: Measurement) -> str:
    """Return a rate in percent with its interval; its record stands on the page that is linked."""
    value: Any = one.value
    places = 2 if value.n >= 10_000 else 1
    shown = (f"{100 * number:.{places}f}" for number in (value.value, value.low, value.high))
    return "{} % ({} to {})".format(*shown)


def registry() -> str:
    """Return every registered attack, with what its file says of it, or its class in another's."""
    from purpleteam.attacks import ATTACKS

    lines = ["| Name | What it is | Adversary | Norms |", "| --- | --- | --- | --- |"]
    for name, attack in ATTACKS.items():
        module = sys.modules[attack.__module__]
        own = module.__name__.endswith(f".{name}")
        first = ((module if own else attack).__doc__ or "").strip().splitlines()[0].rstrip(".")
        if not own and (paper := PAPER.search(module.__doc__ or "")) and "arXiv" not in first:
            first = f"{first} {' '.join(paper[0].split())}"
        lines.append(f"| `{name}` | {first} | {attack.knowledge} | {', '.join(attack.norms)} |")
    return "\n".join(lines)


def speed(path: Path) -> str:
    """Return what attacks cost beside a bare loop, other libraries and their own model calls."""
    found = json.loads(path.read_text(encoding="utf-8"))
    parts = [_steps(found["steps"])] if "steps" in found else []
    parts += [_autoattack(found["autoattack"])] if "autoattack" in found else []
    parts += [_scale(found["scale"])] if "scale" in found else []
    block = next(iter(found.values()))
    parts.append(
        f"Processor time on one thread, {block['machine']['model']}, torch "
        f"{block['versions']['torch']}, "
        f"{'with' if block['fast_bfloat16'] else 'without'} bfloat16 units, least of the "
        "repetitions; data: "
        f"{block['data']}. `make bench` repeats it."
    )
    return "\n\n".join(parts)


def _steps(found: Mapping[str, Any]) -> str:
    kinds = [key for key in found if key.startswith(("fgsm ", "pgd_40 "))]
    ways = list(found[kinds[0]]["over_bare"])
    lines = [f"| Times the bare loop | {' | '.join(kinds)} |", "| --- " * (len(kinds) + 1) + "|"]
    for way in ways:
        cells = [f"{found[kind]['over_bare'].get(way, float('nan')):.2f}" for kind in kinds]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    faster = [f"{found[kind]['times_faster_than_fastest_peer']:.1f}" for kind in kinds]
    lines.append(f"| the fastest other library over ours | {' | '.join(faster)} |")
    return "\n".join(lines)


def _autoattack(found: Mapping[str, Any]) -> str:
    head = "| AutoAttack, whole | Over the replay of its own model calls | torchattacks at the "
    lines = [head + "published steps over ours | Left standing: ours, theirs |", "| --- " * 4 + "|"]
    for which in ("undefended", "robust"):
        one = found[which]
        faster = one.get("times_faster_than_torchattacks_at_100_steps")
        left = one["robust_accuracy"]
        peer = left.get("torchattacks")
        theirs = DASH if peer is None else f"{100 * peer:.1f} %"
        lines.append(
            f"| {which} | {one['over_replay']:.3f} | {DASH if faster is None else f'{faster:.1f}'} "
            f"| {100 * left['purpleteam']:.1f} %, {theirs} |"
        )
    return "\n".join(lines) + f"\n\nOn the first {found['images']} test images."


def _scale(found: Mapping[str, Any]) -> str:
    peaks = [
        f"{name} on {found.get('many', 10_000):,} images peaks at "
        f"{found[name]['peak_megabytes']:,.0f} MB"
        for name in ("pgd", "autoattack")
    ]
    lines = [f"Memory: {', '.join(peaks)}. Milliseconds an image:"]
    for which, costs in sorted(found["seconds_per_image"].items(), reverse=True):
        each = sorted((int(size), 1000 * value) for size, value in costs.items())
        told = ", ".join(f"{_three(value)} of {size:,}" for size, value in each)
        lines.append(f"{which}: {told} images;")
    return " ".join(lines).removesuffix(";") + "."


def _three(value: float) -> str:
    """Return a number to about three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
