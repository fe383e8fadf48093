"""Defences: before and after, judged by attacks on the defended model itself."""

from __future__ import annotations

from collections.abc import Sequence

from purpleteam.core.records import Measurement
from purpleteam.report.blocks import bar_of, checks_block, matrices
from purpleteam.report.chapters.evasion import soundness
from purpleteam.report.chapters.models import clean_matrices
from purpleteam.report.collect import Evidence, model_name, team
from purpleteam.report.figures import bars
from purpleteam.report.numbers import number_of, number_or_dash, radius
from purpleteam.report.published import with_published
from purpleteam.report.training import training
from purpleteam.report.view import (
    Block,
    Chapter,
    Figure,
    Given,
    Inline,
    Missing,
    Reading,
    Row,
    Table,
    row,
)

MEANS = (
    "Each defence is compared with the undefended model on three things at once: clean images, one "
    "quick attack, and the strongest attack here on the defended model itself."
)
MEANS_NOT = (
    "A defence that only scores on images made against another model has learnt those images. "
    "A defence that stops the one-step attack and falls to the iterated one hides its gradients "
    "rather than being robust. And what holds at one radius need not hold at a larger one."
)


def chapter(evidence: Evidence) -> Chapter:
    """Return the chapter."""
    names = [name for name in evidence.models if team(name) == "defence"]
    epsilon = evidence.headline_epsilon
    before = [
        name
        for name in evidence.models
        if team(name) == "plain" and epsilon is not None and evidence.weakest(name, epsilon)
    ]
    blocks: list[Block] = []
    if not names:
        blocks.append(Missing("No defence was trained or measured."))
    elif epsilon is None:
        blocks.append(
            Missing("Defended models were not attacked, so nothing is known about the defences.")
        )
    else:
        figure = _figure(evidence, before + names, epsilon)
        blocks += [figure] if figure is not None else []
        blocks.append(_table(evidence, before + names, epsilon))
    blocks += clean_matrices(evidence, names)
    blocks += _matrices(evidence)
    blocks += training(evidence, names, "Training of the defences")
    checks = evidence.checks("defence", "defences")
    blocks += [checks_block(checks, "Checks of the defences", "")] if checks else []
    blocks.append(Reading(MEANS, MEANS_NOT))
    lead = "What hardening buys, and what it costs on clean images."
    return Chapter(id="defences", title="Defences", lead=lead, blocks=tuple(blocks))


def _table(evidence: Evidence, names: Sequence[str], epsilon: float) -> Table:
    columns = (
        "Model",
        "Clean accuracy",
        f"FGSM, ε = {epsilon:g}",
        f"Strongest attack, ε = {epsilon:g}",
        "Transferred images",
    )
    return Table(
        caption="Before and after",
        columns=columns,
        rows=tuple(_row(evidence, name, epsilon) for name in names),
        note=("The middle columns are white-box, on the model in the row.",),
    )


def _row(evidence: Evidence, name: str, epsilon: float) -> Row:
    clean = evidence.one("clean_accuracy", name)
    one_step = evidence.one("robust_accuracy", name, attack="fgsm", epsilon=epsilon)
    strongest = evidence.weakest(name, epsilon)
    claimed = evidence.one("transfer_accuracy", name, epsilon=epsilon)
    return row(
        name,
        with_published(evidence, clean),
        number_or_dash(one_step),
        (number_or_dash(strongest), *_attack(strongest)),
        with_published(evidence, claimed),
    )


def _attack(measurement: Measurement | None) -> tuple[Inline, ...]:
    if measurement is None or measurement.how.get("attack") is None:
        return ()
    verdict = soundness(measurement)[0]
    return (" ", Given(str(measurement.how["attack"]), measurement.id), " ", verdict)


def _figure(evidence: Evidence, names: Sequence[str], epsilon: float) -> Figure | None:
    pairs = [
        (name, clean, robust)
        for name in names
        if (robust := evidence.weakest(name, epsilon)) is not None
        and (clean := evidence.one("clean_accuracy", name)) is not None
    ]
    if not pairs:
        return None
    groups = [
        (name, (bar_of(clean, "plain", "clean"), bar_of(robust, "attack", "under attack")))
        for name, clean, robust in pairs
    ]
    title = "Clean and under attack"
    rows = tuple(row(name, number_of(clean), number_of(robust)) for name, clean, robust in pairs)
    return Figure(
        title=title,
        svg=bars(title, "For each model, clean accuracy and robust accuracy.", groups),
        caption=(
            "Grey: clean accuracy. Red: what the strongest white-box attack here left, ",
            Given(radius(epsilon), pairs[0][2].id),
            ".",
        ),
        table=Table(
            caption=title,
            columns=("Model", "Clean accuracy", "Robust accuracy"),
            rows=rows,
            folded=True,
        ),
    )


def _matrices(evidence: Evidence) -> list[Block]:
    found = [
        one
        for one in evidence.find("confusion_matrix")
        if one.how.get("attack") and team(model_name(one)) == "defence"
    ]
    return matrices(found)
