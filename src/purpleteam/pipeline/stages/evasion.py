"""Stage attacks, first part: how far test images must move before a model errs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial

from purpleteam import verbs
from purpleteam.attacks.evasion import EvasionAttack
from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.core.records import Note, Record
from purpleteam.core.schema import MODEL
from purpleteam.models.black_box import BlackBox
from purpleteam.models.loading import LoadedModel
from purpleteam.pipeline.stages.models import baseline
from purpleteam.pipeline.state import Piece, Run
from purpleteam.verbs.ladders import attack_from

USUAL = "usual"
"""The strongest attack that model and time allow."""
WHITE_BOX = "white-box"


def attack_baseline(run: Run) -> Iterator[Piece]:
    """Attack the model at hand: each attack by itself, the curve, and L2."""
    model = baseline(run)
    yield from each_attack(run, "attacks", model, model.name, run.epsilon)
    yield Piece(f"curve {model.name}", partial(over_epsilon, run, "attacks", model, model.name))
    yield from l2_attack(run, "attacks", model, model.name)


def each_attack(
    run: Run, stage: str, model: LoadedModel, name: str, epsilon: float
) -> Iterator[Piece]:
    """Yield every attack that is asked for, each by itself, at one radius."""
    for text in attacks_of(run, model):
        do = partial(_attacked, run, stage, model, name, text, [epsilon], run.config.evasion.limit)
        yield Piece(f"{text} on {name}, epsilon {epsilon:g}", do)


def attacks_of(run: Run, model: LoadedModel) -> list[str]:
    """Return the attacks that are asked for and that the model tells enough for."""
    asked = run.config.evasion.attacks
    if not isinstance(model.module, BlackBox):
        return list(asked)
    kept = [text for text in asked if text == USUAL or attack_from(text).knowledge != WHITE_BOX]
    for text in asked:
        if text not in kept:
            run.left_out("attacks", f"The attack {text}", "the model gives no gradients")
    return kept


def l2_attack(run: Run, stage: str, model: LoadedModel, name: str) -> Iterator[Piece]:
    """Yield the one attack in L2, where one is asked for."""
    asked = run.config.evasion
    if asked.l2_epsilon is None or isinstance(model.module, BlackBox):
        return
    attack, radii = PGD(norm="l2", epsilon=asked.l2_epsilon), [asked.l2_epsilon]
    do = partial(_attacked, run, stage, model, name, attack, radii, asked.curve_images)
    yield Piece(f"pgd in l2 on {name}", do)


def over_epsilon(run: Run, stage: str, model: LoadedModel, name: str) -> list[Record]:
    """Measure robust accuracy under PGD at each radius of the curve, as one cell."""
    if not run.curve:
        return []
    if isinstance(model.module, BlackBox):
        run.left_out(stage, "Robust accuracy over epsilon", "the model gives no gradients")
        return []
    attack, limit = PGD(steps=40, epsilon=max(run.curve)), run.config.evasion.curve_images
    return _attacked(run, stage, model, name, attack, list(run.curve), limit, "curve")


def _attacked(
    run: Run,
    stage: str,
    model: LoadedModel,
    name: str,
    asked: EvasionAttack | str,
    radii: list[float],
    limit: int | None,
    what: str = "attack",
) -> list[Record]:
    """Measure robust accuracy under one attack, with its soundness, as one cell."""
    if isinstance(asked, str) and asked != USUAL:
        asked = attack_from(asked, epsilon=radii[-1])
    seed, checked = run.config.seed, run.config.evasion.checked
    depends_on = {
        "attack": asked if isinstance(asked, str) else {"name": asked.name, **asdict(asked)},
        "epsilons": radii,
        "model": model.digest,
        "limit": limit,
        "checked": checked,
        "seed": seed,
    }

    def measure() -> list[Record]:
        result = verbs.attack(
            replace(model, name=name),
            run.dataset,
            attack=None if asked == USUAL else asked,
            epsilon=radii,
            split="test",
            limit=limit,
            checked=checked,
            seed=seed,
            **run.doing,
        )
        part = (Note.kind, MODEL)  # it has one already
        return [one for one in result.records if (one.kind, getattr(one, "name", "")) != part]

    return run.cell(stage, f"{what} {name}", depends_on, measure)
