"""Copies of a subject's model, from its answers, and their records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from purpleteam.core.records import Measurement, Record
from purpleteam.models.architectures import usual_architecture
from purpleteam.models.black_box import Gives
from purpleteam.models.inference import logits
from purpleteam.models.recipes import RECIPES
from purpleteam.privacy.extraction import Strategy
from purpleteam.privacy.extraction.extract import Extraction, extract
from purpleteam.verbs._learned import spelled
from purpleteam.verbs._subject import Subject

BUDGETS = (100, 300, 1000, 3000, 10_000)
"""Questions after which a copy is measured."""
ASKED = 1000  # questions, where nobody says how many


def copied(
    subject: Subject,
    strategies: Sequence[Strategy],
    arch: str | None,
    queries: int | None,
) -> tuple[list[Extraction], list[Record], list[str]]:
    """Return what each strategy buys by scores and by labels, the records, and notes."""
    pool, most = subject.dataset.validation, queries or ASKED
    budgets = [count for count in BUDGETS if count <= most] or [most]
    arch = arch or usual_architecture(subject.shape)  # nobody tells what net the model is
    plan, found, records = RECIPES["plain"](), list[Extraction](), list[Record]()
    answers: tuple[Gives, ...] = ("labels",)
    if getattr(subject.loaded.module, "gives", "scores") == "scores":
        answers = ("scores", "labels")
    for strategy in strategies:
        for given in answers:
            extraction = extract(
                partial(logits, subject.loaded.module),
                strategy,
                pool=pool,
                test=subject.dataset.test.first(subject.limit),
                queries=budgets,
                answers=given,
                net=lambda seed: replace(subject, seed=seed).net(arch),
                recipe=plan,
                seed=subject.seed,
                progress=subject.progress,
            )
            found.append(extraction)
            records += _records(subject, extraction, {"name": plan.name, **asdict(plan)})
    few = f"copies ask about {len(pool)} validation images"
    notes = [f"{few}, and moved ones beyond"] if max(budgets) > len(pool) else []
    return found, records, notes


def _records(subject: Subject, found: Extraction, recipe: dict[str, Any]) -> list[Record]:
    about, records = subject.about(), list[Record]()
    for point in found.points:
        how: dict[str, Any] = {"strategy": spelled(found.strategy)}
        how |= {"answers": found.answers, "queries": point.queries, "recipe": recipe}
        for name, value in (("copy_agreement", point.agreement), ("copy_accuracy", point.accuracy)):
            records.append(
                Measurement(
                    name=name,
                    value=value,
                    subject=about,
                    how=how,
                    detail={"refused": found.refused},
                    seed=subject.seed,
                )
            )
    return records
