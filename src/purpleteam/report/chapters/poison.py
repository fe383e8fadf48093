"""Attacks by poisoning: attack success rate, never without base rate and clean accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from purpleteam.core.records import Measurement
from purpleteam.core.statistics import Rate
from purpleteam.report.blocks import galleries, given, matrices
from purpleteam.report.chapters.models import clean_matrices
from purpleteam.report.collect import Evidence, model_name, team
from purpleteam.report.figures import Bar, bars
from purpleteam.report.numbers import number_of, number_or_dash, of_value
from purpleteam.report.published import with_published
from purpleteam.report.training import training
from purpleteam.report.view import (
    DASH,
    Block,
    Cell,
    Chapter,
    Figure,
    Given,
    Inline,
    Missing,
    Reading,
    RecordLink,
    Row,
    Table,
    row,
)

MEANS = (
    "Attack success rate counts triggered images of other classes that get the label the attacker "
    "wants. The base rate is how often a clean model gives that label to the same images: only "
    "what lies above it is the backdoor's work. Several seeds are several experiments, and are "
    "never pooled."
)
MEANS_NOT = (
    "Accuracy on triggered images is not an attack success rate: it can be high while the backdoor "
    "works and low while it does not. Nor does an unchanged clean accuracy mean that a model is "
    "clean."
)
OTHERS = {
    "triggered_accuracy": "Accuracy on all images, triggered",
    "recovered_accuracy": "Triggered and still right",
    "clean_accuracy_difference": "Clean accuracy less that of the clean twin",
}
MEANS_OVER_SEEDS = {
    "attack_success_rate_mean": "Attack success rate, mean over seeds",
    "clean_accuracy_difference_mean": "Clean accuracy less that of the twin, mean over seeds",
}


def chapter(evidence: Evidence) -> Chapter:
    """Return the chapter."""
    found = [one for one in evidence.find("attack_success_rate") if not one.how.get("lab")]
    blocks: list[Block] = (
        [_table(evidence, found)]
        if found
        else [Missing("No backdoor was planted, so no attack success rate is known.")]
    )
    blocks += galleries(evidence, "trigger")
    figure = _per_source(evidence, found)
    blocks += [figure] if figure is not None else []
    tables = (
        _beside(evidence, "What stands beside the success rate", OTHERS),
        _beside(evidence, "Over the seeds, each a training of its own", MEANS_OVER_SEEDS),
    )
    blocks += [table for table in tables if table is not None]
    poisoned = [name for name in evidence.models if team(name) == "poison"]
    blocks += clean_matrices(evidence, poisoned)
    blocks += _matrices(evidence)
    blocks += training(evidence, poisoned, "Training on poisoned data")
    blocks.append(Reading(MEANS, MEANS_NOT))
    lead = "What a few marked training images do, measured the way that counts."
    return Chapter(id="poison", title="Attacks: poison", lead=lead, blocks=tuple(blocks))


def _table(evidence: Evidence, found: Sequence[Measurement]) -> Table:
    columns = (
        "Model",
        "Poison",
        "Seed",
        "Clean accuracy",
        "Attack success rate",
        "Base rate",
    )
    return Table(
        caption="Backdoors: success, beside base rate and clean accuracy",
        columns=columns,
        rows=tuple(_row(evidence, one) for one in found),
    )


def _row(evidence: Evidence, one: Measurement) -> Row:
    clean, base = evidence.around(one)
    return row(
        (model_name(one), RecordLink(one.id)),
        _recipe(one),
        DASH if one.seed is None else Given(str(one.seed), one.id),
        number_or_dash(clean),
        with_published(evidence, one),
        number_or_dash(base),
    )


def _recipe(one: Measurement) -> Cell:
    parts: list[Inline] = []
    if one.how.get("poisoned") is not None:
        parts += [given(one, "poisoned"), " images, "]
    if "relabel" in one.how:
        kept = "relabelled" if one.how["relabel"] else "label kept"
        parts.append(kept)
    if one.how.get("target_label") is not None:
        parts += [", target ", given(one, "target_label")]
    return tuple(parts) or (DASH,)


def _per_source(evidence: Evidence, found: Sequence[Measurement]) -> Figure | None:
    shown: dict[str, Measurement] = {}
    for one in found:
        if isinstance(one.detail.get("per_source"), Mapping):
            shown.setdefault(model_name(one), one)
    if not shown:
        return None
    worst = max(shown.values(), key=lambda one: number_of(one).value)
    groups = [(f"true {label}", (_bar(rate, worst),)) for label, rate in _sources(worst).items()]
    title = f"Attack success rate by true class, {model_name(worst)}"
    labels = list(dict.fromkeys(label for one in shown.values() for label in _sources(one)))
    rows = tuple(
        row(name, *(_source_number(one, label) for label in labels)) for name, one in shown.items()
    )
    return Figure(
        title=title,
        svg=bars(
            title, "One bar for each true class; the target class itself does not count.", groups
        ),
        caption=(
            "A backdoor that works from some classes only hides in the mean. ",
            RecordLink(worst.id),
        ),
        table=Table(
            caption="Attack success rate by true class",
            columns=("Model", *(f"true {label}" for label in labels)),
            rows=rows,
            folded=True,
            dense=True,
        ),
    )


def _sources(one: Measurement) -> dict[str, Rate]:
    rates: Mapping[str, Any] = one.detail.get("per_source") or {}
    return {
        str(label): rate if isinstance(rate, Rate) else Rate(**rate)
        for label, rate in sorted(rates.items(), key=lambda pair: str(pair[0]))
    }


def _bar(rate: Rate, one: Measurement) -> Bar:
    text = of_value(rate, "attack_success_rate", one.id).text
    return Bar(
        value=rate.value, low=rate.low, high=rate.high, text=text, record=one.id, style="attack"
    )


def _source_number(one: Measurement, label: str) -> Inline:
    rate = _sources(one).get(label)
    return DASH if rate is None else of_value(rate, "attack_success_rate", one.id)


def _beside(evidence: Evidence, caption: str, asked: Mapping[str, str]) -> Table | None:
    found: dict[tuple[str, int | None], dict[str, Measurement]] = {}
    for name in asked:
        for one in evidence.find(name):
            found.setdefault((model_name(one), one.seed), {}).setdefault(name, one)
    names = [name for name in asked if any(name in measured for measured in found.values())]
    if not names:
        return None
    rows = tuple(
        row(
            model,
            "all" if seed is None else Given(str(seed), next(iter(measured.values())).id),
            *(with_published(evidence, measured.get(name)) for name in names),
        )
        for (model, seed), measured in found.items()
    )
    return Table(
        caption=caption,
        columns=("Model", "Seed", *(asked[name] for name in names)),
        rows=rows,
    )


def _matrices(evidence: Evidence) -> list[Block]:
    found = [one for one in evidence.find("confusion_matrix") if one.how.get("trigger")]
    return matrices(found)
