"""privacy: which training images a model gives away, by attacks on its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from purpleteam.core.errors import UsageError
from purpleteam.core.records import Measurement, Record
from purpleteam.verbs.attack import listed
from purpleteam.verbs.options import Budget, Epochs, Images, Model, OnModel
from purpleteam.verbs.result import Result, percent, table
from purpleteam.verbs.verb import Option, verb

if TYPE_CHECKING:
    from purpleteam.privacy.membership import MembershipAttack
    from purpleteam.privacy.membership.measure import Membership
    from purpleteam.verbs._subject import Subject

USUAL = ("loss", "entropy", "lira", "rmia", "bavaria", "label_only")
FALSE_POSITIVES = (0.001, 0.01)


@dataclass(frozen=True, kw_only=True, repr=False)
class GivenAway(Result):
    """What each attack on privacy found."""

    stage = "privacy"

    membership: tuple[Membership, ...] = ()

    def lines(self) -> list[str]:
        rows: list[tuple[str, ...]] = [
            ("attack", "at 0.1 % false", "at 1 % false", "advantage", "AUROC")
        ]
        for row in self.values["membership"]:
            found = [percent(row["tpr_at"][f"{rate:g}"]) for rate in FALSE_POSITIVES]
            wide = [_spanned(row[name]) for name in ("advantage", "auroc")]
            rows.append((row["attack"], *found, *wide))
        lines = ["training images recognised, and others taken for them", *table(rows)]
        doubts = {row["doubt"] for row in self.values["membership"] if not row["trusted"]}
        return lines + [f"not to be trusted: {doubt}" for doubt in sorted(doubts)]


def _spanned(value: dict[str, Any]) -> str:
    return "{value:.3f} ({low:.3f} to {high:.3f})".format_map(value)


@verb(answers=True)
def privacy(
    model: Model = "standard",
    images: Images = "digits",
    labels: Any = None,
    *,
    attack: Annotated[
        Any, Option(kind=list[str], help="NAME[:field=value,...]; repeatable.")
    ] = None,
    shadows: Annotated[
        int, Option(least=2, help="Shadow models, each of a random half of the images; even.")
    ] = 8,
    recipe: Annotated[
        Any, "How shadow models are trained: NAME[:field=value,...]; as the model's card says."
    ] = None,
    epochs: Epochs = None,
    queries: Annotated[
        int | None, Option(least=1, help="Questions that the model answers each attack, at most.")
    ] = None,
    budget: Budget = None,
    **given: Unpack[OnModel],
) -> GivenAway:
    """Tell which training images a model gives away: membership inference.

    Members are the training split, or the part of it that the model's card names; the test split
    was not learned. Eight shadow models cost three trainings of the model at most.
    """
    from purpleteam.models.inference import logits
    from purpleteam.privacy.membership import MEMBERSHIP, Evidence
    from purpleteam.privacy.membership.measure import measure
    from purpleteam.privacy.shadows import Pool, halves
    from purpleteam.verbs._shadows import Training, learned_by, shadows_of
    from purpleteam.verbs._subject import code_of, open_subject
    from purpleteam.verbs.trained import part, seconds_of

    named, seconds = listed(attack), seconds_of(budget)
    asked = [part(MEMBERSHIP, text, "attack") for text in named or USUAL]
    halves(0, shadows, 0)  # an odd number is refused before anything is read
    arch = given.get("arch")
    given["arch"] = code_of(arch, model)
    subject = open_subject(images, labels, model=model, **given)
    loaded, notes = subject.loaded, list(subject.notes)
    if getattr(loaded.module, "gives", "scores") == "labels":
        blind = [one.name for one in asked if one.answers == "scores"]
        if named and blind:
            takes = [name for name in MEMBERSHIP if MEMBERSHIP[name].answers == "labels"]
            only = f"model {loaded.name!r} gives labels only, and {blind[0]} needs scores"
            raise UsageError(f"{only}; with labels: {', '.join(takes)}")
        asked = [one for one in asked if one.answers == "labels"]
        notes.append(f"the model gives labels only, so these are not tried: {', '.join(blind)}")
    learned, others, guessed = learned_by(subject)
    pool = Pool.of(learned, others, shadows=shadows, seed=subject.seed)
    told: dict[str, Any] = {}
    rows = pool.judged(subject.seed)
    evidence: dict[str, Any] = {"images": pool.images.take(rows), "seed": subject.seed}
    how: dict[str, Any] = {}
    if any(one.needs_shadows for one in asked):
        training = Training.of(subject, arch, recipe, epochs)
        trained = shadows_of(subject, training, pool, shadows, seconds)
        evidence |= {"shadows": trained.scores[:, rows], "inside": trained.inside[:, rows]}
        how = {"recipe": {"name": training.recipe.name, **asdict(training.recipe)}}
        told = {"arch": training.arch, **how, "seconds": round(trained.seconds, 1)}
        told |= {"count": len(trained), "images": len(pool.images) // 2}
        notes += training.notes
        if len(trained) < shadows:
            notes.append(f"--budget: {len(trained)} of {shadows} shadow models were trained")
    found = []
    with subject.progress.task("membership inference", len(asked)) as task:
        seen = Evidence(ask=partial(logits, loaded.module), **evidence)
        for row in measure(seen, pool.member[rows], asked, most=queries):
            found.append(row)
            task.advance(1)
    return GivenAway(
        membership=tuple(found),
        values={
            "membership": [row.to_json() for row in found],
            "shadow_models": told or None,
            "members": len(learned),
            "subject": subject.about(training_set=learned.digest),
            "data": subject.data("test"),
        },
        records=(*_records(subject, learned.digest, found, how), subject.part()),
        notes=(*notes, *guessed),
    )


def _records(
    subject: Subject, learned: str, found: Sequence[Membership], recipe: dict[str, Any]
) -> list[Record]:
    """Return the area under each attack's curve, its advantage, and its rates where it is sure."""
    about, records = subject.about(training_set=learned), list[Record]()
    for row in found:
        told, roc = row.to_json(), row.roc
        how: dict[str, Any] = {"attack": _spelled(row.attack), "queries": row.queries}
        how |= {"answers": row.attack.answers}
        how |= {"shadows": row.shadows, **recipe} if row.attack.needs_shadows else {}
        common: dict[str, Any] = {"subject": about, "seed": subject.seed}
        cost = {"cpu_seconds": row.seconds}
        kept = ("members", "others", "curve", "gap", "power", "trusted", "doubt")
        detail = {key: told[key] for key in kept if told.get(key) is not None}
        records.append(
            Measurement(
                name="membership_auroc",
                value=roc.auc(),
                how=how,
                detail=detail,
                cost=cost,
                **common,
            )
        )
        records.append(
            Measurement(name="membership_advantage", value=roc.advantage(), how=how, **common)
        )
        for rate in FALSE_POSITIVES:
            if (recognised := roc.tpr_at(rate)) is not None:
                records.append(
                    Measurement(
                        name="membership_rate",
                        value=recognised,
                        how=how | {"false_positive_rate": rate},
                        detail={"trusted": not row.doubt},
                        **common,
                    )
                )
    return records


def _spelled(attack: MembershipAttack) -> str:
    """Return an attack as it is asked for, with the options that are not its defaults."""
    usual = asdict(type(attack)())
    changed = {key: value for key, value in asdict(attack).items() if value != usual[key]}
    given = ",".join(f"{key}={value}" for key, value in changed.items())
    return attack.name + (f":{given}" if given else "")
