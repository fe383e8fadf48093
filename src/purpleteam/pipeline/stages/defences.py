"""Stage defences: harden, then attack the hardened model itself, white-box."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from purpleteam.core.config import build
from purpleteam.defences.training import DEFENCES, Defence, Hardening
from purpleteam.models.loading import LoadedModel
from purpleteam.pipeline.stages.evasion import each_attack, l2_attack, over_epsilon
from purpleteam.pipeline.stages.models import baseline, evaluated
from purpleteam.pipeline.state import Piece, Run
from purpleteam.verbs.trained import described

NAMES = {"pgd": "hardened"}
"""What a model of a recipe is called in records; others by the recipe's own name."""


def harden_models(run: Run) -> Iterator[Piece]:
    """Harden by each recipe that is asked for; evaluate clean and white-box."""
    recipes = run.config.defences.recipes
    if not recipes:
        return
    before = baseline(run)
    for recipe in recipes:
        name = NAMES.get(recipe, f"hardened-{recipe}")
        yield Piece(f"harden by {recipe}", partial(hardened_by, run, recipe, name, before))
    others = {defence_of(run, recipe).epsilon for recipe in recipes}
    for epsilon in sorted(others - {run.epsilon}):
        yield from each_attack(run, "defences", before, before.name, epsilon)


def hardened_by(run: Run, recipe: str, name: str, before: LoadedModel) -> Iterator[Piece]:
    """Harden by a recipe; yield the measurements of the hardened model."""
    defence = defence_of(run, recipe)
    model = hardened(run, defence, recipe, name, before)
    yield Piece(f"evaluate {name}", partial(evaluated, run, "defences", model, name))
    for epsilon in sorted({run.epsilon, defence.epsilon}):
        yield from each_attack(run, "defences", model, name, epsilon)
    yield Piece(f"curve {name}", partial(over_epsilon, run, "defences", model, name))
    if recipe == "pgd":
        yield from l2_attack(run, "defences", model, name)


def hardened(
    run: Run, defence: Defence, recipe: str, name: str, before: LoadedModel
) -> LoadedModel:
    """Return the model that a defence trains, as one cell."""
    return run.trained(
        "defences",
        name,
        role="hardened",
        seed=run.config.seed,
        recipe=described(recipe, defence),
        data_digest=run.train.digest,
        parent=before.digest if defence.needs_baseline else None,
        fit=lambda net, checkpoint: defence.harden(
            Hardening(
                net=net,
                dataset=run.dataset,
                baseline=before.module,
                seed=run.config.seed,
                checkpoint=checkpoint,
                device=run.device,
                description=f"harden {name}",
                progress=run.progress,
            )
        ),
    )


def defence_of(run: Run, recipe: str) -> Defence:
    """Return the training defence of that name with what the request says of it."""
    asked = run.config.defences
    options = dict(asked.options.get(recipe, {}))
    if asked.epochs is not None:
        options.setdefault("epochs", asked.epochs)
    kind = DEFENCES[recipe]
    if not kind.needs_baseline:  # the radius of one that attacks beforehand is part of it
        options.setdefault("epsilon", run.epsilon)
    return build(kind, options, f"recipe {recipe}")
