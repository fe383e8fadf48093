"""Membership inference of a subject's model: shadow models, what they show, and its records."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from purpleteam.core.records import Measurement, Record
from purpleteam.models.inference import logits
from purpleteam.models.weights import digest_of
from purpleteam.privacy.membership import Evidence, MembershipAttack
from purpleteam.privacy.membership.measure import Membership, measure
from purpleteam.privacy.roc import FALSE_POSITIVES
from purpleteam.privacy.shadows import Pool, train_shadows
from purpleteam.verbs._learned import Training, spelled
from purpleteam.verbs._subject import Subject

ENDS = ("low", "high")
KEPT = ("members", "others", "curve", "gap", "power", "trusted", "doubt")
"""What of an attack's answer stands in its record beside the numbers."""


def recognised(
    subject: Subject,
    attacks: Sequence[MembershipAttack],
    training: Training,
    pool: Pool,
    learned: str,
    shadows: int,
    seconds: float | None,
    queries: int | None,
) -> tuple[list[Membership], dict[str, Any] | None, list[Record], list[str]]:
    """Return what each attack finds, what the shadow models are, the records, and notes.

    `learned` is the digest of what the model has learned. Shadow models are trained where an attack
    compares with them; a stopped training goes on after the last of them.
    """
    rows, notes = pool.judged(subject.seed), list[str]()
    evidence: dict[str, Any] = {"images": pool.images.take(rows), "seed": subject.seed}
    how, told = dict[str, Any](), None
    journal = subject.journal(
        pool=pool.images.digest,
        arch=training.arch,
        start=digest_of(subject.net(training.arch)),
        recipe=training.told,
        validation=subject.dataset.validation.digest,
        device=subject.device.type,
    )
    if any(one.needs_shadows for one in attacks):
        trained = train_shadows(
            pool.images,
            lambda images, seed: training.train(subject, images, seed, f"shadow {seed}"),
            count=shadows,
            seed=subject.seed,
            folder=journal.folder,
            budget_seconds=seconds,
            progress=subject.progress,
        )
        evidence |= {"shadows": trained.scores[:, rows], "inside": trained.inside[:, rows]}
        how = {"recipe": training.told}
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
    journal.remove()
    return found, told, _records(subject, learned, found, how), notes


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
        area: dict[str, Any] = {"value": roc.auc(), "detail": detail, "cost": cost}
        records += [
            Measurement(name="membership_auroc", how=how, **area, **common),
            Measurement(name="membership_advantage", value=roc.advantage(), how=how, **common),
        ]
        for rate in FALSE_POSITIVES:
            if (sure := roc.tpr_at(rate)) is None:
                continue
            bounds = dict(zip(ENDS, roc.bounds_at(rate), strict=True))
            records.append(
                Measurement(
                    name="membership_rate",
                    value=sure,
                    how=how | {"false_positive_rate": rate},
                    detail={"trusted": not row.doubt, "bounds": bounds},
                    **common,
                )
            )
    return records
