"""attack and poison: at test time, and in the training set."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from purpleteam.cli.options import (
    Arch,
    DatasetOption,
    Debug,
    Device,
    Epochs,
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
from purpleteam.cli.screen import answer, percent, progress, table

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command()(poison)
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
    from purpleteam.attacks.evaluate import curve
    from purpleteam.attacks.soundness import judge
    from purpleteam.cli.lab import Lab
    from purpleteam.pipeline.stages.evasion import attack_from

    radii = sorted(set(epsilons or [0.3]))
    ladder = [
        attack_from(text, epsilon=radius, norm=norm)
        for radius in radii
        for text in attacks or ["pgd"]
    ][-len(attacks or ["pgd"]) :]
    lab = Lab.open(dataset, device=device, threads=threads, weights=weights)
    loaded = lab.load(model)
    images = lab.dataset.split(split).first(limit)
    with progress(quiet or as_json) as bar:
        points = curve(
            loaded.module, images, ladder, radii, seed=seed, batch_size=batch_size, progress=bar
        )
        sound = judge(loaded.module, images, ladder, list(points.values()), seed=seed)
    last = points[radii[-1]]
    if out is not None:
        last.save_images(out)
    values: dict[str, Any] = {
        "clean_accuracy": last.clean_accuracy.to_json(),
        "robust_accuracy": last.robust_accuracy.to_json(),
        "attacks": [row.to_json() for row in last.attacks],
        "curve": [
            {
                "epsilon": radius,
                "norm": ladder[-1].norm,
                "robust_accuracy": p.robust_accuracy.to_json(),
            }
            for radius, p in points.items()
        ],
        "soundness": sound.to_json(),
        "cost": {key: sum(p.cost[key] for p in points.values()) for key in last.cost},
        "subject": lab.subject(loaded, split, limit),
    }
    answer(values, _attack_lines(values) + lab.flags(split, limit), as_json=as_json)


def poison(
    dataset: DatasetOption = "digits",
    attack: Annotated[
        str, typer.Option("--attack", help="badnets, seed_a or seed_b, with [:field=value,...].")
    ] = "badnets",
    count: Annotated[int | None, typer.Option("--count", min=1, help="Images changed.")] = None,
    target_label: Annotated[
        int | None, typer.Option("--target-label", min=0, help="Label the adversary wants.")
    ] = None,
    train: Annotated[
        bool, typer.Option("--train", help="Train on it and measure the backdoor.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Clean model for the base rate; trained if absent."),
    ] = None,
    weights: Weights = None,
    arch: Arch = "classic_cnn",
    recipe: Annotated[str, typer.Option("--recipe", help="Training recipe.")] = "plain",
    epochs: Epochs = None,
    out: Out = None,
    seed: Seed = 0,
    threads: Threads = None,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Change a few training images; with --train, say what that buys."""
    from purpleteam.attacks.poison import POISONS
    from purpleteam.cli.lab import Lab
    from purpleteam.core.config import build, parse_part
    from purpleteam.data.folders import save_dataset

    lab = Lab.open(dataset, device=device, threads=threads, weights=weights)
    name, fields = parse_part(attack)
    given = {"count": count, "target_label": target_label}
    fields = {key: value for key, value in given.items() if value is not None} | fields
    plan = build(POISONS[name], fields, f"attack {name}")
    poisoned = plan.apply(lab.dataset.train, seed=seed)
    changed = replace(lab.dataset, name=f"{lab.dataset.name}-{name}", train=poisoned.images)
    folder = save_dataset(changed, out or Path("data") / changed.name, poisoned.manifest)
    values: dict[str, Any] = {
        "dataset": str(folder),
        "digest": poisoned.images.digest,
        "poisoned": len(poisoned.indices),
        "rate": poisoned.rate,
        "target_label": plan.target_label,
        "trigger": plan.trigger.describe(lab.dataset.shape[2]),
    }
    if train:
        with progress(quiet or as_json) as bar:
            values |= _measured(
                lab, plan, poisoned, folder, model, arch, (recipe, epochs), seed, bar
            )
    answer(values, _poison_lines(values), as_json=as_json)


def _measured(
    lab: Any,
    plan: Any,
    poisoned: Any,
    folder: Path,
    model: str | None,
    arch: str,
    asked: tuple[str, int | None],
    seed: int,
    bar: Any,
) -> dict[str, Any]:
    """Train on the poisoned set, and on the clean one unless a clean model is given."""
    from purpleteam.attacks.poison.evaluate import evaluate_backdoor
    from purpleteam.cli.lab import recipe_from
    from purpleteam.models.recipes import RECIPES
    from purpleteam.models.training import train as fit

    name, recipe = recipe_from(RECIPES, asked[0], asked[1])

    def fitted(images: Any, description: str) -> Any:
        return fit(
            lab.net(arch, seed),
            images,
            lab.dataset.validation,
            recipe,
            seed=seed,
            device=lab.device,
            description=description,
            progress=bar,
        )

    training = fitted(poisoned.images, "train on the poisoned set")
    stored = lab.store(
        training,
        folder / "model",
        arch,
        {"name": name, "poison": plan.describe(lab.dataset.shape[2])},
        recipe,
        seed,
        data_digest=poisoned.images.digest,
    )
    if model is not None:
        clean = lab.load(model).module
    else:
        clean = fitted(lab.dataset.train, "train the clean twin").module
    found = evaluate_backdoor(training.module, lab.dataset.test, plan, clean_model=clean)
    twin = {"clean_model": model or "trained: same recipe and seed on the clean set"}
    return {"model": str(stored.weights)} | found.to_json() | twin | {"recipe": asdict(recipe)}


def _attack_lines(values: dict[str, Any]) -> list[str]:
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


def _poison_lines(values: dict[str, Any]) -> list[str]:
    shown: list[tuple[str, Any]] = []
    shown += [
        (key, values[key]) for key in ("dataset", "poisoned", "target_label") if key in values
    ]
    rates = ("clean_accuracy", "attack_success_rate", "base_rate", "triggered_accuracy")
    shown += [(key.replace("_", " "), percent(values[key])) for key in rates if key in values]
    lines = table(shown)
    if "per_source" in values:
        lines += ["attack success rate by true class:"]
        lines += table([(f"  {c}", percent(rate)) for c, rate in values["per_source"].items()])
    return lines
