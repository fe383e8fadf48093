"""attack: how far test images must move before a model errs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from purpleteam.cli.options import (
    DatasetOption,
    Debug,
    Device,
    Json,
    Limit,
    Model,
    Out,
    Quiet,
    Seed,
    Split,
    Threads,
    Weights,
)
from purpleteam.cli.outputs import file_to_write
from purpleteam.cli.screen import answer, percent, progress, table
from purpleteam.core.errors import UsageError

if TYPE_CHECKING:
    from purpleteam.attacks.evasion import EvasionAttack

__all__ = ["add_to"]

EPSILON = 0.3
"""The radius that is asked about where none is named: MNIST's usual one, in linf."""


def add_to(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(attack)


def attack(
    model: Model = "standard",
    weights: Weights = None,
    dataset: DatasetOption = "digits",
    split: Split = "test",
    limit: Limit = None,
    attacks: Annotated[
        list[str] | None, typer.Option("--attack", help="NAME[:field=value,...]; repeatable.")
    ] = None,
    norm: Annotated[str | None, typer.Option("--norm", help="linf or l2.")] = None,
    epsilons: Annotated[
        list[float] | None, typer.Option("--epsilon", help="Radius in [0, 1]; repeatable: a curve.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images at once.")] = 500,
    out: Out = None,
    seed: Seed = 0,
    threads: Threads = None,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Robust accuracy under every attack tried, with a verdict on the evaluation itself."""
    from purpleteam.attacks.evaluate import evaluate
    from purpleteam.attacks.soundness import judge
    from purpleteam.cli.lab import Lab

    ladders = _ladders(attacks or ["pgd"], epsilons, norm)
    out = file_to_write(out)
    lab = Lab.open(dataset, device=device, threads=threads, weights=weights)
    loaded = lab.load(model)
    images = lab.dataset.split(split).first(limit)
    with progress(quiet or as_json) as bar:
        points = {
            radius: evaluate(
                loaded.module, images, *ladder, seed=seed, batch_size=batch_size, progress=bar
            )
            for radius, ladder in ladders.items()
        }
        widest = ladders[max(ladders)]
        sound = judge(loaded.module, images, widest, list(points.values()), seed=seed)
    last = points[max(points)]
    if out is not None:
        last.save_images(out)
    values: dict[str, Any] = {
        "clean_accuracy": last.clean_accuracy.to_json(),
        "robust_accuracy": last.robust_accuracy.to_json(),
        "attacks": [row.to_json() for row in last.attacks],
        "curve": [
            {
                "epsilon": radius,
                "norm": widest[-1].norm,
                "robust_accuracy": p.robust_accuracy.to_json(),
            }
            for radius, p in points.items()
        ],
        "soundness": sound.to_json(),
        "cost": {key: sum(p.cost[key] for p in points.values()) for key in last.cost},
        "subject": lab.subject(loaded, split, limit),
    }
    answer(values, _lines(values) + lab.flags(split, limit), as_json=as_json)


def _ladders(
    texts: list[str], epsilons: list[float] | None, norm: str | None
) -> dict[float, list[EvasionAttack]]:
    """Return the ladder of attacks for each radius: one norm and one epsilon, or no number."""
    from purpleteam.core.config import parse_part
    from purpleteam.pipeline.stages.evasion import attack_from

    named = [text for text in texts if "epsilon" in parse_part(text)[1]]
    own = [attack_from(text, norm=norm).epsilon for text in named]
    ladders = {
        radius: [attack_from(text, epsilon=radius, norm=norm) for text in texts]
        for radius in sorted(set(epsilons or own or [EPSILON]))
    }
    for radius, ladder in ladders.items():
        for one, text in zip(ladder, texts, strict=True):
            if (one.norm, one.epsilon) != (ladder[0].norm, radius):
                raise UsageError(
                    f"--attack {text!r} is in {one.norm} at {one.epsilon:g}, others in "
                    f"{ladder[0].norm} at {radius:g}: measure each norm and epsilon by itself"
                )
    return ladders


def _lines(values: dict[str, Any]) -> list[str]:
    sound = values["soundness"]
    rows = [
        (f"{row['name']} {row['norm']} {row['epsilon']:g}", "survived", percent(row["survived"]))
        for row in values["attacks"]
    ]
    robust = percent(values["robust_accuracy"])
    if sound["verdict"] == "not_established":
        robust = f"not established (the attacks left {robust})"
    lines = [f"clean accuracy   {percent(values['clean_accuracy'])}", *table(rows)]
    if len(values["curve"]) > 1:
        lines += table(
            [(f"{p['epsilon']:g}", percent(p["robust_accuracy"])) for p in values["curve"]]
        )
    lines += [f"robust accuracy  {robust}", f"soundness        {sound['verdict']}"]
    return [*lines, *(f"- {reason}" for reason in sound["reasons"])]
