"""Membership inference of a subject's model: shadow models, what they show, and its records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from purpleteam.core.records import Measurement, Record
from purpleteam.data.images import ImageSet
from purpleteam.models.inference import logits
from purpleteam.privacy.membership import Evidence, MembershipAttack
from purpleteam.privacy.membership.measure import Membership, measure
from purpleteam.privacy.shadows import Pool
from purpleteam.verbs._shadows import Training, shadows_of
from purpleteam.verbs._subject import Subject

FALSE_POSITIVES, ENDS = (0.001, 0.01), ("low", "high")
KEPT = ("members", "others", "curve", "gap", "power", "trusted", "doubt")
"""What of an attack's answer stands in its record beside the numbers."""


def recognised(
    subject: Subject,
    attacks: Sequence[MembershipAttack],
    training: Training,
    learned: ImageSet,
    others: ImageSet,
    shadows: int,
    seconds: float | None,
    queries: int | None,
) -> tuple[list[Membership], dict[str, Any] | None, list[Record], list[str]]:
    """Return what each attack finds, what the shadow models are, the records, and notes."""
    pool, notes = Pool.of(learned, others, shadows=shadows, seed=subject.seed), list[str]()
    rows = pool.judged(subject.seed)
    evidence: dict[str, Any] = {"images": pool.images.take(rows), "seed": subject.seed}
    how, told = dict[str, Any](), None
    if any(one.needs_shadows for one in attacks):
        trained = shadows_of(subject, training, pool, shadows, seconds)
        evidence |= {"shadows": trained.scores[:, rows], "inside": trained.inside[:, rows]}
        how = {"recipe": {"name": training.recipe.name, **asdict(training.recipe)}}
        told = {"arch": training.arch, **how, "seconds": round(trained.seconds, 1)}
        told |= {"count": len(trained), "images": len(pool.images) // 2}
        notes += training.notes
        if len(trained) < shadows:
            notes.append(f"--budget: {len(trained)} of {shadows} shadow models were trained")
    found = []
    with subject.progress.task("membership inference", len(attacks)) as task:
        seen = Evidence(ask=partial(logits, subject.loaded.module), **evidence)
        for row in measure(seen, pool.member[rows], attacks, most=queries):
            found.append(row)
            task.advance(1)
    return found, told, _records(subject, learned.digest, found, how), notes


def _records(
    subject: Subject, learned: str, found: Sequence[Membership], recipe: dict[str, Any]
) -> list[Record]:
    """Return the area under each attack's curve, its advantage, and its rates where it is sure."""
    about, records = subject.about(training_set=learned), list[Record]()
    for row in found:
        told, roc = row.to_json(), row.roc
        how: dict[str, Any] = {"attack": spelled(row.attack), "queries": row.queries}
        how |= {"answers": row.attack.answers}
        how |= {"shadows": row.shadows, **recipe} if row.attack.needs_shadows else {}
        common: dict[str, Any] = {"subject": about, "seed": subject.seed}
        cost = {"cpu_seconds": row.seconds}
        detail = {key: told[key] for key in KEPT if told.get(key) is not None}
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
                        detail={
                            "trusted": not row.doubt,
                            "bounds": dict(zip(ENDS, roc.bounds_at(rate), strict=True)),
                        },
                        **common,
                    )
                )
    return records


def spelled(attack: Any) -> str:
    """Return an attack as it is asked for, with the options that are not its defaults."""
    usual = asdict(type(attack)())
    changed = {key: value for key, value in asdict(attack).items() if value != usual[key]}
    given = ",".join(f"{key}={value}" for key, value in changed.items())
    return f"{attack.name}:{given}" if given else str(attack.name)
