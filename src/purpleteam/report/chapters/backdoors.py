"""Backdoors: looked for in models and training sets, and in the lab planted and taken out again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from purpleteam.core.records import Measurement, Note
from purpleteam.core.schema import MODEL_SCAN, NO_REPAIR, NO_SEARCH, TRAINING_SET_SCAN
from purpleteam.report.blocks import bars_figure, gallery_blocks
from purpleteam.report.chapter import (
    CHAPTERS,
    Chapter,
    Sheet,
    beside,
    of_how,
    of_itself,
    of_model,
    of_seed,
)
from purpleteam.report.chapters.poison import beside_success
from purpleteam.report.collect import Evidence, about, model_name, value_of
from purpleteam.report.numbers import heading, number_or_dash, of_fraction
from purpleteam.report.view import (
    DASH,
    Badge,
    Block,
    Cell,
    Gallery,
    Given,
    Inline,
    Prose,
    Reading,
    RecordLink,
    Table,
    row,
)

SHARES = (
    "model_detection_rate",
    "model_false_alarm_rate",
    "training_set_detection_rate",
    "training_set_false_alarm_rate",
)
AGAIN = "attack_success_rate_planted_again"
MEANS = (
    "Each backdoor was planted in a training set and learned by a model of its own. The detectors "
    "were told neither class nor number nor trigger; what was planted was used only to count "
    "afterwards. The clean models show what the same detectors say where nothing was planted."
)
MEANS_NOT = (
    "A detector that finds these backdoors need not find others: an adversary who knows it will "
    "try to hide from it. And a repair that lowers the success of the planted trigger was tested "
    "with that trigger alone."
)
OWN_MEANS = (
    "Nothing was planted here: the detectors looked at the models and the training set of this "
    "run. A score that reaches its limit is one that a clean model or set would hardly have."
)
OWN_MEANS_NOT = (
    "That nothing was found does not prove that nothing is there: weak, rare and adaptive "
    "triggers pass, and an adversary who knows the detector will try to hide from it."
)


def _in_lab(evidence: Evidence) -> list[Measurement]:
    """Return the lab's attack success rates, those after a repair included."""
    return evidence.find("attack_success_rate", lab=True)


def _planted(evidence: Evidence, record: Measurement) -> bool:
    return bool(record.how.get("lab")) and "repair" not in record.how


def _repaired(evidence: Evidence, record: Measurement) -> bool:
    return bool(record.how.get("lab")) and "repair" in record.how


def _scanned(evidence: Evidence, record: Measurement) -> Cell:
    model = record.subject.get("model")
    notes = (note for note in evidence.notes(MODEL_SCAN) if note.facts.get("model") == model)
    return verdict(next(notes, None))


def verdict(note: Note | None) -> Cell:
    """Return what a search says, and whether it is right about what was planted."""
    if note is None:
        return (DASH,)
    facts, planted = note.facts, note.facts.get("planted", {})
    if facts.get("backdoored") is None:
        reasons = "; ".join(map(str, facts.get("reasons", ()))) or "no verdict was recorded"
        return (Badge("not established", "warn"), ": ", Given(reasons, note.id))
    target = Given(str(facts.get("target_label")), note.id)
    clean = planted.get("poison") == "none"
    if not facts.get("backdoored"):
        return (Badge("nothing found", "good" if clean or facts.get("own") else "bad"),)
    if facts.get("own"):
        return (Badge("found", "bad"), " to ", target)
    if clean:
        return (Badge("false alarm", "bad"), " to ", target)
    right = facts.get("target_label") == planted.get("target_label")
    return (Badge("found", "good") if right else Badge("wrong target", "bad"), " to ", target)


def _after(evidence: Evidence, record: Measurement) -> list[Measurement]:
    """Return the success rates of the repaired versions of a backdoored model."""
    before = record.subject.get("model")
    return [repair for repair in _in_lab(evidence) if repair.subject.get("before") == before]


def _best_repair(evidence: Evidence, record: Measurement) -> Cell:
    best = min(_after(evidence, record), key=value_of, default=None)
    if best is None:
        return (DASH,)
    return (number_or_dash(best), " ", Given(str(best.how["repair"]), best.id))


def _figure(evidence: Evidence) -> list[Block]:
    planted = [record for record in _in_lab(evidence) if _planted(evidence, record)]
    shown = [
        (record, after)
        for record in planted
        if record.seed == planted[0].seed and (after := _after(evidence, record))
    ]
    if not shown:
        return []
    groups = [
        (
            model_name(record),
            [
                (record, "attack", "not repaired"),
                *((repair, "plain", str(repair.how["repair"])) for repair in after),
            ],
        )
        for record, after in shown
    ]
    title = "What the trigger still does after each repair"
    caption = "Red: before. Grey: after each repair; the shorter, the better. First seed."
    about = "For each backdoor, attack success before and after."
    return [bars_figure(title, about, groups, (caption,))]


def _pictures(evidence: Evidence) -> list[Block]:
    """Return what was planted with what was recovered beside it, a backdoor at a time."""
    shown: dict[str, Gallery] = {}
    for found in gallery_blocks(evidence, "planted", "recovered"):
        name = found.title.partition(": ")[2]
        before = shown.get(name)
        if before is None:
            shown[name] = found
            continue
        title, pictures = f"Planted, and recovered: {name}", before.pictures + found.pictures
        shown[name] = replace(before, title=title, pictures=pictures)
    return list(shown.values())


def _shares(evidence: Evidence) -> list[Block]:
    sheet = Sheet(
        caption="How often the detectors are right",
        metrics=SHARES,
        columns={"What": lambda _, record: heading(record.name), "Share": of_itself},
    )
    return sheet(evidence)


def _searches(evidence: Evidence) -> list[Block]:
    """Return every search's answer, so that the lost ones and the false alarms are seen."""
    rows = tuple(
        row(
            (str(note.facts.get("model_name")), RecordLink(note.id)),
            Given(str(note.facts.get("seed")), note.id),
            "model" if note.name == MODEL_SCAN else "training set",
            _fact(note, "score"),
            _fact(note, "threshold"),
            verdict(note),
        )
        for note in evidence.notes(MODEL_SCAN, TRAINING_SET_SCAN)
    )
    columns = ("Model", "Seed", "Looked at", "Score", "Flagged from", "Answer")
    folded = bool(_in_lab(evidence))  # where nothing was planted, this is all there is to tell
    table = Table(caption="Every scan for a backdoor", columns=columns, rows=rows, folded=folded)
    return [table] if rows else []


def _fact(note: Note, key: str) -> Inline:
    value = note.facts.get(key)
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return of_fraction(float(value), key, note.id) if known else DASH  # type: ignore[arg-type]


def _auroc(evidence: Evidence, record: Measurement) -> Inline:
    areas = evidence.find("detector_auroc", lab=True)
    return number_or_dash(about(areas, record, detector=record.how.get("detector")))


def _repairs(evidence: Evidence) -> list[Block]:
    """Return every repair, the failures included."""
    counts = sorted({int(record.how["planted_again"]) for record in evidence.find(AGAIN)})
    sheet = Sheet(
        caption="Every repair",
        metrics=("attack_success_rate",),
        where=_repaired,
        columns={
            "Model": of_model,
            "Seed": of_seed,
            heading("clean_accuracy"): beside("clean_accuracy"),
            heading("clean_accuracy_difference", "Change of it"): beside(
                "clean_accuracy_difference"
            ),
            heading("attack_success_rate"): of_itself,
            heading("recovered_accuracy", "Triggered and right"): beside("recovered_accuracy"),
            heading("worst_source_success_rate", "Success from the worst class"): beside(
                "worst_source_success_rate"
            ),
            heading("defence_effectiveness", "Effectiveness (DER)"): beside(
                "defence_effectiveness"
            ),
            **{
                f"Success after planting {count} again": beside(AGAIN, planted_again=count)
                for count in counts
            },
        },
        dense=True,
        optional=(heading("worst_source_success_rate", "Success from the worst class"),),
    )
    return sheet(evidence)


def _refused(evidence: Evidence) -> list[Block]:
    """Say which scans could not be done, and which repairs had nothing to go by."""
    words = {NO_SEARCH: "No scan of", NO_REPAIR: "No repair"}
    return [
        Prose(
            (
                f"{words[note.name]} {note.facts.get('model_name')}: {note.facts.get('why')} ",
                RecordLink(note.id),
            )
        )
        for note in evidence.notes(NO_SEARCH, NO_REPAIR)
    ]


def _reading(evidence: Evidence) -> Sequence[Block]:
    planted = any(_planted(evidence, record) for record in _in_lab(evidence))
    return [Reading(MEANS, MEANS_NOT) if planted else Reading(OWN_MEANS, OWN_MEANS_NOT)]


CHAPTERS.register("backdoors")(
    Chapter(
        title="Backdoors",
        lead="What scans for backdoors say of the models and the training sets.",
        metrics=("attack_success_rate", "attack_success_rate_planted_again", *SHARES),
        lab=True,
        parts=(
            Sheet(
                caption="Attack, detection and repair",
                metrics=("attack_success_rate",),
                where=_planted,
                columns={
                    "Backdoor": of_model,
                    "Seed": of_seed,
                    heading("clean_accuracy"): beside("clean_accuracy"),
                    heading("attack_success_rate"): of_itself,
                    heading("base_rate"): beside("base_rate"),
                    heading("detection_recall", "Poisoned images found"): beside(
                        "detection_recall", detector="combined"
                    ),
                    heading("false_positive_rate", "Clean images flagged"): beside(
                        "false_positive_rate", detector="combined"
                    ),
                    "Model scan": _scanned,
                    "Success after the best repair": _best_repair,
                },
                dense=True,
                note=("The best repair is the one after which the trigger works least.",),
            ),
            _figure,
            _pictures,
            _shares,
            _searches,
            Sheet(
                caption="What each detector's ranking of the training images is worth",
                metrics=("average_precision",),
                where=lambda _, record: bool(record.how.get("lab")),
                columns={
                    "Model": of_model,
                    "Seed": of_seed,
                    "Detector": of_how("detector"),
                    heading("detector_auroc", "AUROC"): _auroc,
                    heading("average_precision"): of_itself,
                },
                folded=True,
            ),
            _repairs,
            beside_success(lab=True),
            _refused,
            _reading,
        ),
        notes=(MODEL_SCAN, TRAINING_SET_SCAN, NO_SEARCH),
        stage="defences",
        gap="Backdoors: neither a model nor a training set was scanned for one",
        try_="purple detect --model {model} --dataset {dataset}",
        after="defences",
    )
)
