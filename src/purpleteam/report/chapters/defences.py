"""Defences: before and after, by attacks on the defended model itself."""

from __future__ import annotations

from purpleteam.core.records import Measurement
from purpleteam.report.blocks import bars_figure, checks, matrices, trainings
from purpleteam.report.chapter import CHAPTERS, Chapter
from purpleteam.report.chapters.evasion import soundness
from purpleteam.report.collect import UNDEFENDED, Evidence
from purpleteam.report.numbers import heading, number_or_dash, radius
from purpleteam.report.view import Block, Cell, Given, Missing, Row, Table, row


def _before_and_after(evidence: Evidence) -> list[Block]:
    """Return the undefended and the hardened models side by side, as figure and table."""
    names, epsilon = evidence.models_of("hardened"), evidence.headline_epsilon
    if not names:
        return []
    if epsilon is None:
        return [Missing("Hardened models were not attacked: nothing is known about the defences.")]
    before = [name for name in evidence.models_of(*UNDEFENDED) if evidence.weakest(name, epsilon)]
    pairs = [
        (name, clean, robust)
        for name in before + names
        if (robust := evidence.weakest(name, epsilon)) is not None
        and (clean := evidence.best("clean_accuracy", name)) is not None
    ]
    blocks: list[Block] = []
    if pairs:
        given = Given(radius(epsilon), pairs[0][2].id)
        caption = ("Grey: clean. Red: what the strongest white-box attack left, ", given, ".")
        groups = [
            (name, ((clean, "plain", "clean"), (robust, "attack", "under attack")))
            for name, clean, robust in pairs
        ]
        about = "For each model, clean accuracy and robust accuracy."
        blocks.append(bars_figure("Clean and under attack", about, groups, caption))
    columns = (
        "Model",
        heading("clean_accuracy"),
        heading("robust_accuracy", f"FGSM, ε = {epsilon:.4g}"),
        heading("robust_accuracy", f"Strongest attack, ε = {epsilon:.4g}"),
        heading("transfer_accuracy", "Transferred images"),
    )
    table = Table(
        caption="Before and after",
        columns=columns,
        rows=tuple(_row(evidence, name, epsilon) for name in before + names),
        note=("The middle columns are white-box, on the model in the row.",),
    )
    return [*blocks, table]


def _row(evidence: Evidence, name: str, epsilon: float) -> Row:
    strongest = evidence.weakest(name, epsilon)
    return row(
        name,
        number_or_dash(evidence.best("clean_accuracy", name)),
        number_or_dash(evidence.best("robust_accuracy", name, attack="fgsm", epsilon=epsilon)),
        _strongest(strongest),
        number_or_dash(evidence.best("transfer_accuracy", name, epsilon=epsilon)),
    )


def _strongest(record: Measurement | None) -> Cell:
    if record is None or record.how.get("attack") is None:
        return (number_or_dash(record),)
    attack = Given(str(record.how["attack"]), record.id)
    return (number_or_dash(record), " ", attack, " ", soundness(record)[0])


CHAPTERS.register("defences")(
    Chapter(
        title="Defences",
        lead="What hardening buys, and what it costs on clean images.",
        metrics=("clean_accuracy", "robust_accuracy", "transfer_accuracy", "validation_accuracy"),
        roles=("hardened",),
        parts=(
            _before_and_after,
            lambda evidence: matrices(evidence, "hardened"),
            lambda evidence: matrices(evidence, "hardened", key="attack"),
            lambda evidence: trainings(evidence, "Training of the defences", "hardened"),
            checks("Checks of the defences", "defence", "defences"),
        ),
        means="Each defence is compared with the undefended model on three things at once: clean "
        "images, one quick attack, and the strongest attack here on the defended model itself.",
        means_not="A defence that only scores on images made against another model has learnt "
        "those images. A defence that stops the one-step attack and falls to the iterated one "
        "hides its gradients rather than being robust. And what holds at one radius need not hold "
        "at a larger one.",
        checks=("defence", "defences"),
        stage="defences",
        gap="Hardening: no defence was trained or attacked",
        try_="purple harden --dataset {dataset} --recipe pgd",
        after="certify",
    )
)
