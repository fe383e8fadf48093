"""Defences: before and after, by attacks on the defended model itself."""

from purpleteam.report.blocks import bars_figure, checks, matrices, trainings
from purpleteam.report.chapter import CHAPTERS, Chapter
from purpleteam.report.chapters.evasion import soundness
from purpleteam.report.collect import UNDEFENDED, Evidence
from purpleteam.report.numbers import heading, number_of, number_or_dash, of_epsilon, radius
from purpleteam.report.view import Blocks, Cell, Given, Prose, Table, row


def _before_and_after(evidence: Evidence) -> Blocks:
    """Return the undefended and the hardened models side by side, as figure and table."""
    names, epsilon = evidence.models_of("hardened"), evidence.headline_epsilon
    if not names:
        return None
    if epsilon is None:
        said = "Hardened models were not attacked: nothing is known about the defences."
        return Prose((said,), "missing")
    before = [name for name in evidence.models_of(*UNDEFENDED) if evidence.weakest(name, epsilon)]
    groups, rows, figure = [], [], None
    for name in before + names:
        clean, robust = evidence.best("clean_accuracy", name), evidence.weakest(name, epsilon)
        quick = evidence.best("robust_accuracy", name, attack="fgsm", epsilon=epsilon)
        transferred = evidence.best("transfer_accuracy", name, epsilon=epsilon)
        left: Cell = (number_or_dash(robust),)
        if robust is not None and robust.how.get("attack") is not None:
            left += (" ", Given(str(robust.how["attack"]), robust.id), " ", soundness(robust)[0])
        unchanged, stepped, borrowed = map(number_or_dash, (clean, quick, transferred))
        rows.append(row(name, unchanged, stepped, left, borrowed))
        if clean is not None and robust is not None:
            before_attack = (number_of(clean), "plain", "clean")
            groups.append((name, (before_attack, (number_of(robust), "attack", "under attack"))))
    if groups:
        given = Given(radius(epsilon), groups[0][1][1][0].records[0])
        caption = ("Grey: clean. Red: what the strongest white-box attack left, ", given, ".")
        about = "For each model, clean accuracy and robust accuracy."
        figure = bars_figure("Clean and under attack", about, groups, caption)
    columns = (
        "Model",
        heading("clean_accuracy"),
        heading("robust_accuracy", f"FGSM, ε = {of_epsilon(epsilon)}"),
        heading("robust_accuracy", f"Strongest attack, ε = {of_epsilon(epsilon)}"),
        heading("transfer_accuracy", "Transferred images"),
    )
    note = "The middle columns are white-box, on the model in the row."
    return figure, Table("Before and after", columns, rows, note=(note,))


CHAPTER = Chapter(
    title="Defences",
    lead="What hardening gains under attack, and what it costs on clean images.",
    metrics=("clean_accuracy", "robust_accuracy", "transfer_accuracy", "validation_accuracy"),
    roles=("hardened",),
    parts=(
        _before_and_after,
        matrices("hardened"),
        matrices("hardened", key="attack"),
        trainings("Training of the defences", "hardened"),
        checks("Checks of the defences", "defence", "defences"),
    ),
    means="Each defence is compared with the undefended model on three things at once: clean "
    "images, one quick attack, and the strongest attack here on the defended model itself.",
    means_not="A defence that only scores on images made against another model has learnt those "
    "images. A defence that stops the one-step attack and falls to the iterated one hides its "
    "gradients rather than being robust. And what holds at one radius need not hold at a larger "
    "one.",
    checks=("defence", "defences"),
    stage="defences",
    gap="Hardening: no defence was trained or attacked",
    try_="purple harden --dataset {dataset} --recipe pgd",
    after="certify",
)
CHAPTERS.register("defences")(CHAPTER)
