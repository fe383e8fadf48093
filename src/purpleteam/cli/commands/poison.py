"""poison: a few changed training images, and what they buy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from purpleteam.cli.options import (
    Arch,
    Classes,
    DatasetOption,
    Debug,
    Device,
    Epochs,
    Json,
    Normalise,
    Out,
    Quiet,
    Seed,
    Threads,
    Weights,
    number_option,
)
from purpleteam.cli.outputs import folder_to_write
from purpleteam.cli.screen import answer, percent, progress, table, write_answer

if TYPE_CHECKING:
    from torch import nn

    from purpleteam.attacks.poison import PoisonAttack, PoisonedSet
    from purpleteam.cli.lab import Lab
    from purpleteam.core.progress import Progress
    from purpleteam.data.images import ImageSet
    from purpleteam.models.loading import LoadedModel
    from purpleteam.models.recipes import Recipe
    from purpleteam.models.training import Training

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(poison)


def poison(
    dataset: DatasetOption = "digits",
    attack: Annotated[
        str,
        typer.Option(
            "--attack",
            help="badnets, blended, sig, wanet, tact, adaptive_blend, adaptive_patch, clean_label, "
            "witches_brew, label_flip, seed_a or seed_b, with [:field=value,...], also of the "
            "trigger: badnets:trigger.size=4.",
        ),
    ] = "badnets",
    count: Annotated[int | None, typer.Option("--count", min=1, help="Images poisoned.")] = None,
    rate: Annotated[
        float | None, number_option("--rate", "The same as a share of the training images.")
    ] = None,
    target_label: Annotated[
        int | None, typer.Option("--target-label", min=0, help="Label the adversary wants.")
    ] = None,
    sources: Annotated[
        str | None,
        typer.Option("--sources", help="Poisoned classes: other, target, any, or labels: 1,3."),
    ] = None,
    cover: Annotated[
        int | None,
        typer.Option("--cover", min=0, help="Images with the trigger that keep their label."),
    ] = None,
    train: Annotated[
        bool, typer.Option("--train", help="Train on it and measure the backdoor.")
    ] = False,
    curve: Annotated[
        str | None,
        typer.Option("--curve", help="Train with each of these counts instead: 10,20,50,100."),
    ] = None,
    seeds: Annotated[
        int, typer.Option("--seeds", min=2, help="Trainings for each point of the curve.")
    ] = 5,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Clean model for the base rate; trained if absent."),
    ] = None,
    weights: Weights = None,
    normalise: Normalise = None,
    classes: Classes = None,
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
    """Change a few training images; with --train or --curve, say what that buys."""
    from purpleteam.attacks.poison.asked import poison_from
    from purpleteam.cli.lab import Asked, Lab, code_of, recipe_from
    from purpleteam.models.recipes import RECIPES

    name, chosen = recipe_from(RECIPES, recipe, epochs)
    asked = {
        "count": count,
        "rate": rate,
        "target_label": target_label,
        "sources": None if sources is None else _sources(sources),
        "cover": cover,
    }
    counts = None if curve is None else _whole(curve, "--curve")
    plan = poison_from(attack, asked, dataset=None)
    brought = Asked(weights, code_of(arch, model), normalise, classes)
    lab = Lab.open(dataset, device=device, threads=threads, model=brought, training=True)
    plan = poison_from(attack, asked, dataset=lab.dataset)
    measured = lab.dataset.test if train or counts else None
    for one in (
        [plan]
        if counts is None
        else [replace(plan, count=number, rate=None) for number in counts if number]
    ):
        one.check(lab.dataset.train, seed=seed, test=measured)
    twin = lab.load(model) if train and model is not None else None
    if train or counts:
        lab.net(arch, seed)  # what cannot be built is refused before anything is written
    with progress(quiet or as_json) as bar:
        work = _Work(lab, plan, arch, name, chosen, seed, bar)
        if counts is not None:
            values = work.curve(counts, seeds, out)
        else:
            values = work.poisoned(out, train, twin)
    answer(values | lab.data(), [*_lines(values), *lab.flags()], as_json=as_json)


def _sources(text: str) -> str | tuple[int, ...]:
    """Return what --sources means: a word, or labels."""
    if not any(one.isdigit() for one in text):
        return text
    return _whole(text, "--sources")


def _whole(text: str, option: str) -> tuple[int, ...]:
    """Return the whole numbers of a list with commas."""
    from purpleteam.core.errors import UsageError

    parts = [one.strip() for one in text.split(",")]
    if not all(one.isascii() and one.isdigit() and len(one) < 10 for one in parts):
        raise UsageError(f"{option} {text!r} is no list of whole numbers such as 10,20,50")
    return tuple(int(one) for one in parts)


@dataclass(frozen=True)
class _Work:
    """A poison for a dataset, and how what is trained on it is trained."""

    lab: Lab
    plan: PoisonAttack
    arch: str
    name: str
    recipe: Recipe
    seed: int
    bar: Progress

    def poisoned(self, out: Path | None, train: bool, twin: LoadedModel | None) -> dict[str, Any]:
        """Write the poisoned dataset; where asked, train on it and measure."""
        from purpleteam.data.folders import save_dataset

        data, plan = self.lab.dataset, self.plan
        made = plan.apply(data.train, seed=self.seed, validation=data.validation, progress=self.bar)
        changed = replace(data, name=f"{data.name}-{plan.name}", train=made.images)
        folder = folder_to_write(out or Path("data") / changed.name)
        save_dataset(changed, folder, made.manifest)
        values: dict[str, Any] = {
            "dataset": str(folder),
            "digest": made.images.digest,
            "manifest_digest": made.manifest_digest,
            "poison": plan.name,
            "shows": plan.shown,
            "poisoned": len(made.indices),
            "cover": len(made.cover),
            "rate": made.rate,
            "target_label": plan.target_label,
            "trigger": plan.trigger.describe(data.shape[2]),
        }
        return values | (self._measured(made, folder / "model", twin) if train else {})

    def curve(self, counts: tuple[int, ...], seeds: int, out: Path | None) -> dict[str, Any]:
        """Train with each count and seed; what is finished is kept in the folder."""
        from purpleteam.attacks.poison.curve import poison_curve

        data = self.lab.dataset
        folder = folder_to_write(out or Path("data") / f"{data.name}-{self.plan.name}-curve")
        found = poison_curve(
            self.plan,
            data,
            counts=counts,
            seeds=range(self.seed, self.seed + seeds),
            architecture=self.arch,
            recipe=self.recipe,
            journal=folder / "trainings",
            device=self.lab.device,
            progress=self.bar,
        )
        facts = self.plan.describe(data.shape[2])
        facts = {
            key: value for key, value in facts.items() if key not in ("poisoned", "asked_rate")
        }
        values = {"dataset": data.name, "file": str(folder / "curve.json")} | facts
        values |= found.to_json() | {"architecture": self.arch, "recipe": asdict(self.recipe)}
        values |= self.lab.data()
        write_answer(folder / "curve.json", values)
        return values

    def _measured(self, made: PoisonedSet, stem: Path, twin: LoadedModel | None) -> dict[str, Any]:
        """Train, store the poisoned model, and return what the trigger does to it and to a twin."""
        from purpleteam.attacks.poison.evaluate import evaluate_backdoor, evaluate_victim

        training = self._trained(made.images, "train on the poisoned set")
        facts = {"name": self.name, "poison": self.plan.describe(self.lab.dataset.shape[2])}
        digest = made.images.digest
        stored = self.lab.store(
            training, stem, self.arch, facts, self.recipe, self.seed, data_digest=digest
        )
        clean: nn.Module
        if twin is None:
            clean = self._trained(self.lab.dataset.train, "train the clean twin").module
            whose = "trained: same recipe and seed on the clean set"
        else:
            clean, whose = twin.module, twin.name
        test, validation = self.lab.dataset.test, self.lab.dataset.validation
        found = evaluate_backdoor(training.module, test, self.plan, clean_model=clean).to_json()
        if self.plan.shown == "victim":
            nets = {"victim": training.module, "victim_of_clean_model": clean}
            found |= {
                key: evaluate_victim(net, validation, made.manifest).to_json()
                for key, net in nets.items()
            }
        how = {"clean_model": whose, "recipe": asdict(self.recipe)}
        return {"model": str(stored.weights)} | found | how

    def _trained(self, images: ImageSet, description: str) -> Training:
        from purpleteam.models.training import train

        return train(
            self.lab.net(self.arch, self.seed),
            images,
            self.lab.dataset.validation,
            self.recipe,
            seed=self.seed,
            device=self.lab.device,
            description=description,
            progress=self.bar,
        )


def _lines(values: dict[str, Any]) -> list[str]:
    if "curve" in values:
        return _curve_lines(values)
    shown: list[tuple[str, Any]] = [
        (key, values[key]) for key in ("dataset", "poison", "poisoned", "cover", "target_label")
    ]
    rates: tuple[str, ...] = ("clean_accuracy",)
    if values["shows"] == "trigger":
        rates += ("attack_success_rate", "base_rate", "triggered_accuracy")
    shown += [(key.replace("_", " "), percent(values[key])) for key in rates if key in values]
    if "victim" in values:
        one = values["victim"]
        shown.append(("victim", f"image {one['index']}, a {one['label']} read as {one['read_as']}"))
    lines = table(shown)
    if "per_source" in values and values["shows"] == "trigger":
        lines += ["attack success rate by true class:"]
        lines += table([(f"  {c}", percent(rate)) for c, rate in values["per_source"].items()])
    return lines


def _curve_lines(values: dict[str, Any]) -> list[str]:
    rows = [("poisons", "attack success rate", "clean accuracy")]
    rows += [
        (str(p["count"]), percent(p["attack_success_rate"]), percent(p["clean_accuracy"]))
        for p in values["curve"]
    ]
    facts = [("dataset", values["dataset"]), ("poison", values["poison"]), ("file", values["file"])]
    n = len(values["seeds"])
    return [*table(facts), f"mean over {n} seeds with its 95 % t interval:", *table(rows)]
