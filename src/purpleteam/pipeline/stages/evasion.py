"""Stage attacks, first part: how far test images must move before a model errs."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial

from purpleteam import verbs
from purpleteam.attacks.evasion import EvasionAttack
from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.core.records import Record, notes_of
from purpleteam.core.schema import MODEL
from purpleteam.models.loading import LoadedModel
from purpleteam.pipeline.stages.models import baseline
from purpleteam.pipeline.state import Piece, Run
from purpleteam.verbs.ladders import attack_from

USUAL = "usual"  # the strongest attack that model and time allow


def attack_baseline(run: Run) -> Iterator[Piece]:
    """Attack the model at hand: each attack by itself, the curve, and L2."""
    yield from attacked(run, "attacks", baseline(run), [run.epsilon], curve=True, l2=True)


def attacked(
    run: Run,
    stage: str,
    model: LoadedModel,
    radii: Iterable[float],
    *,
    curve: bool = False,
    l2: bool = False,
) -> Iterator[Piece]:
    """Yield every attack that is asked for at each radius, PGD over epsilon, and one in L2."""
    asked, name, few = run.config.evasion, model.name, run.config.evasion.curve_images
    answers = not getattr(model.module, "differentiable", True)
    untold = "the model gives no gradients"
    for epsilon in radii:
        for text in asked.attacks:
            if answers and text != USUAL and attack_from(text).knowledge == "white-box":
                run.left_out("attacks", f"The attack {text}", untold)
                continue
            attack = text if text == USUAL else attack_from(text, epsilon=epsilon)
            do = partial(_attacked, run, stage, model, attack, [epsilon], asked.limit)
            yield Piece(f"{text} on {name}, epsilon {epsilon:g}", do)
    if curve and answers and run.curve:
        run.left_out(stage, "Robust accuracy over epsilon", untold)
    elif curve and run.curve:
        wide = PGD(steps=40, epsilon=max(run.curve))
        do = partial(_attacked, run, stage, model, wide, list(run.curve), few, "curve")
        yield Piece(f"curve {name}", do)
    if l2 and asked.l2_epsilon is not None and not answers:
        pgd = PGD(norm="l2", epsilon=asked.l2_epsilon)
        do = partial(_attacked, run, stage, model, pgd, [asked.l2_epsilon], few)
        yield Piece(f"pgd in l2 on {name}", do)


def _attacked(
    run: Run,
    stage: str,
    model: LoadedModel,
    attack: EvasionAttack | str,
    radii: list[float],
    limit: int | None,
    what: str = "attack",
) -> list[Record]:
    """Measure robust accuracy under one attack, with its soundness, as one cell."""
    seed, checked = run.config.seed, run.config.evasion.checked
    depends_on = {
        "attack": attack if isinstance(attack, str) else {"name": attack.name, **asdict(attack)},
        "epsilons": radii,
        "model": model.digest,
        "limit": limit,
        "checked": checked,
        "seed": seed,
    }

    def measure() -> list[Record]:
        doing = run.doing | {"limit": limit, "checked": checked, "seed": seed}
        named = None if attack == USUAL else attack
        result = verbs.attack(
            model, run.dataset, attack=named, epsilon=radii, split="test", **doing
        )
        # the model's part is recorded already
        parts = notes_of(result.records, MODEL)
        return [record for record in result.records if record not in parts]

    return run.cell(stage, f"{what} {model.name}", depends_on, measure)
