"""poison: a few changed training images, and what they buy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from purpleteam.cli.options import (
    Arch,
    DatasetOption,
    Debug,
    Device,
    Epochs,
    Json,
    Out,
    Quiet,
    Seed,
    Threads,
    Weights,
)
from purpleteam.cli.outputs import folder_to_write
from purpleteam.cli.screen import answer, percent, progress, table

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
    from purpleteam.cli.lab import Lab, recipe_from
    from purpleteam.data.folders import save_dataset
    from purpleteam.models.recipes import RECIPES

    name, chosen = recipe_from(RECIPES, recipe, epochs)
    plan = _plan(attack, count, target_label)
    lab = Lab.open(dataset, device=device, threads=threads, weights=weights)
    if target_label is None and "target_label" not in attack:
        plan = replace(plan, target_label=min(plan.target_label, len(lab.dataset.classes) - 1))
    poisoned = plan.apply(lab.dataset.train, seed=seed)
    twin = lab.load(model) if train and model is not None else None
    if train:
        lab.net(arch, seed)  # what cannot be built is refused before anything is written
    changed = replace(lab.dataset, name=f"{lab.dataset.name}-{plan.name}", train=poisoned.images)
    folder = folder_to_write(out or Path("data") / changed.name)
    save_dataset(changed, folder, poisoned.manifest)
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
            trial = _Trial(lab, plan, poisoned, arch, name, chosen, seed, bar)
            values |= trial.measured(folder / "model", twin)
    answer(values, _lines(values), as_json=as_json)


def _plan(text: str, count: int | None, target_label: int | None) -> PoisonAttack:
    from purpleteam.attacks.poison import POISONS
    from purpleteam.core.config import build, parse_part

    name, fields = parse_part(text)
    given = {"count": count, "target_label": target_label}
    asked = {key: value for key, value in given.items() if value is not None}
    return build(POISONS[name], asked | fields, f"attack {name}")


@dataclass(frozen=True)
class _Trial:
    """A training on the poisoned set and one on the clean set, all else equal."""

    lab: Lab
    plan: PoisonAttack
    poisoned: PoisonedSet
    arch: str
    name: str
    recipe: Recipe
    seed: int
    bar: Progress

    def measured(self, stem: Path, twin: LoadedModel | None) -> dict[str, Any]:
        """Train, store the poisoned model, and return what the trigger does to both."""
        from purpleteam.attacks.poison.evaluate import evaluate_backdoor

        training = self._trained(self.poisoned.images, "train on the poisoned set")
        stored = self.lab.store(
            training,
            stem,
            self.arch,
            {"name": self.name, "poison": self.plan.describe(self.lab.dataset.shape[2])},
            self.recipe,
            self.seed,
            data_digest=self.poisoned.images.digest,
        )
        clean: nn.Module
        if twin is None:
            clean = self._trained(self.lab.dataset.train, "train the clean twin").module
            whose = "trained: same recipe and seed on the clean set"
        else:
            clean, whose = twin.module, twin.name
        test = self.lab.dataset.test
        found = evaluate_backdoor(training.module, test, self.plan, clean_model=clean)
        facts = {"clean_model": whose, "recipe": asdict(self.recipe)}
        return {"model": str(stored.weights)} | found.to_json() | facts

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
    shown: list[tuple[str, Any]] = [
        (key, values[key]) for key in ("dataset", "poisoned", "target_label")
    ]
    rates = ("clean_accuracy", "attack_success_rate", "base_rate", "triggered_accuracy")
    shown += [(key.replace("_", " "), percent(values[key])) for key in rates if key in values]
    lines = table(shown)
    if "per_source" in values:
        lines += ["attack success rate by true class:"]
        lines += table([(f"  {c}", percent(rate)) for c, rate in values["per_source"].items()])
    return lines
