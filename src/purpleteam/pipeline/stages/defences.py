"""Stage defences: harden, then attack the hardened model itself, white-box.

What the seeds measured, accuracy on images made against another model, stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial

from torch import nn

from purpleteam.core.config import build
from purpleteam.core.records import Record
from purpleteam.data.images import ImageSet
from purpleteam.defences.evaluate import transfer_accuracy
from purpleteam.defences.training import DEFENCES, Defence, Hardening
from purpleteam.defences.training.seeds import fgsm_set, wrapped_fgsm_set
from purpleteam.models.loading import LoadedModel
from purpleteam.pipeline.stages.evasion import each_attack, l2_attack, over_epsilon, shown
from purpleteam.pipeline.stages.models import baseline, evaluated
from purpleteam.pipeline.work import Piece, Work

__all__ = ["defence_of", "harden_models"]

NAMES = {
    "pgd": "hardened",
    "fast": "hardened-fast",
    "seed_a": "seed-a-defence",
    "seed_b": "seed-b-defence",
}
"""What a model of each recipe is called in records; others by the recipe's own name."""

MAKERS: dict[str, Callable[[nn.Module, ImageSet, float], ImageSet]] = {
    "seed_a": fgsm_set,
    "seed_b": wrapped_fgsm_set,
}
"""How each seed made the images that it tested its defence on."""


def harden_models(work: Work) -> Iterator[Piece]:
    """Harden by each recipe; evaluate clean, by transfer and white-box."""
    if not work.config.defences.recipes:
        return
    before = baseline(work)
    for recipe in work.config.defences.recipes:
        yield Piece(f"harden by {recipe}", partial(_by_recipe, work, recipe, before))
    others = {defence_of(work, recipe).epsilon for recipe in work.config.defences.recipes}
    for epsilon in sorted(others - {work.config.evasion.epsilon}):
        yield from each_attack(work, "defences", before, "baseline", epsilon)


def _by_recipe(work: Work, recipe: str, before: LoadedModel) -> Iterator[Piece]:
    defence = defence_of(work, recipe)
    name = NAMES.get(recipe, f"hardened-{recipe}")
    model = _hardened(work, defence, name, before)
    yield Piece(f"evaluate {name}", partial(evaluated, work, "defences", model, name))
    for maker in MAKERS:
        if maker == recipe or recipe == "pgd":
            transfer = partial(_by_transfer, work, maker, defence, model, name, before)
            yield Piece(f"transfer of {maker} to {name}", transfer)
    yield from _white_box(work, defence, model, name)


def defence_of(work: Work, recipe: str) -> Defence:
    """Return the training defence of that name with what the request says of it."""
    asked = work.config.defences
    options = dict(asked.options.get(recipe, {}))
    if asked.epochs is not None:
        options.setdefault("epochs", asked.epochs)
    if recipe not in MAKERS:  # the seeds' radii are part of their recipes
        options.setdefault("epsilon", work.config.evasion.epsilon)
    return build(DEFENCES[recipe], options, f"recipe {recipe}")


def _hardened(work: Work, defence: Defence, name: str, before: LoadedModel) -> LoadedModel:
    return work.trained(
        "defences",
        name,
        role="hardened",
        seed=work.config.seed,
        recipe={"name": defence.name, **asdict(defence)},
        data_digest=work.train.digest,
        parent=before.digest if defence.name in MAKERS else None,
        make=lambda net, checkpoint: defence.harden(
            Hardening(
                net=net,
                dataset=work.dataset,
                baseline=before.module,
                seed=work.config.seed,
                checkpoint=checkpoint,
                device=work.device,
                description=f"harden {name}",
                progress=work.progress,
            )
        ),
    )


def _white_box(work: Work, defence: Defence, model: LoadedModel, name: str) -> Iterator[Piece]:
    for epsilon in sorted({work.config.evasion.epsilon, defence.epsilon}):
        yield from each_attack(work, "defences", model, name, epsilon)
    yield Piece(f"curve {name}", partial(over_epsilon, work, "defences", model, name))
    if defence.name == "pgd":
        yield l2_attack(work, "defences", model, name)
    if defence.name in ("pgd", "seed_a"):
        yield Piece(f"gallery {name}", partial(shown, work, "defences", model, name))


def _by_transfer(
    work: Work, maker: str, defence: Defence, model: LoadedModel, name: str, before: LoadedModel
) -> None:
    epsilon = defence.epsilon if maker == defence.name else DEFENCES[maker]().epsilon
    test = work.dataset.test

    def measure() -> list[Record]:
        images = MAKERS[maker](before.module, test, epsilon)
        how = {
            "attack": "fgsm",
            "norm": "linf",
            "epsilon": epsilon,
            "made_as": maker,
            "made_against": before.digest,
        }
        both = ((model, name), (before, "baseline"))
        return [
            transfer_accuracy(one.module, images, test, work.subject(one, called), **how)
            for one, called in both[: 2 if maker == defence.name else 1]
        ]

    depends_on = {
        "maker": maker,
        "epsilon": epsilon,
        "model": model.digest,
        "against": before.digest,
    }
    work.cell("defences", f"transfer {name}", depends_on, measure)
