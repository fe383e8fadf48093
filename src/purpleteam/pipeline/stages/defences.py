"""Stage defences: harden, then attack the hardened model itself, white-box."""

from collections.abc import Iterator
from functools import partial

from purpleteam.core.config import build
from purpleteam.defences.training import DEFENCES, BallDefence, Defence
from purpleteam.models.loading import LoadedModel
from purpleteam.pipeline.stages.certify import certified
from purpleteam.pipeline.stages.evasion import attacked
from purpleteam.pipeline.stages.models import baseline, evaluated
from purpleteam.pipeline.state import Piece, Run

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
    others = {radius for recipe in recipes for radius in radii_of(run, defence_of(run, recipe))}
    yield from attacked(run, "defences", before, sorted(others - {run.epsilon}))


def hardened_by(run: Run, recipe: str, name: str, before: LoadedModel) -> Iterator[Piece]:
    """Harden by a recipe; yield the measurements of the hardened model."""
    defence = defence_of(run, recipe)
    model = run.trained("defences", name, defence, role="hardened", baseline=before)
    yield Piece(f"evaluate {name}", partial(evaluated, run, "defences", model))
    yield from certified(run, "defences", model)
    radii = radii_of(run, defence)
    yield from attacked(run, "defences", model, radii, curve=True, l2=recipe == "pgd")


def radii_of(run: Run, defence: Defence) -> list[float]:
    """Return the radii within which a hardened model is attacked: the run's, and its own if any."""
    own = {defence.epsilon} if isinstance(defence, BallDefence) else set()
    return sorted({run.epsilon} | own)


def defence_of(run: Run, recipe: str) -> Defence:
    """Return the training defence of that name with what the request says of it."""
    asked = run.config.defences
    options = dict(asked.options.get(recipe, {}))
    if asked.epochs is not None:
        options.setdefault("epochs", asked.epochs)
    kind = DEFENCES[recipe]
    # The radius of one that attacks beforehand is part of it; a privacy budget is no radius.
    if issubclass(kind, BallDefence) and not kind.needs_baseline:
        options.setdefault("epsilon", run.epsilon)
    return build(kind, options, f"recipe {recipe}")
