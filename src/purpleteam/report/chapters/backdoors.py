"""Backdoors: looked for in models and training sets, and in the lab planted and taken out again."""

from __future__ import annotations

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
    of_name,
    of_seed,
)
from purpleteam.report.chapters.poison import beside_success
from purpleteam.report.collect import Evidence, about, model_name, value_of
from purpleteam.report.numbers import heading, number_of, number_or_dash, of_fraction
from purpleteam.report.view import (
    DASH,
    Badge,
    Cell,
    Figure,
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
PLANTED = Reading(
    "Each backdoor was planted in a training set and learned by a model of its own. The detectors "
    "were told neither class nor number nor trigger; what was planted was used only to count "
    "afterwards. The clean models show what the same detectors say where nothing was planted.",
    "A detector that finds these backdoors need not find others: an adversary who knows it will "
    "try to hide from it. And a repair that lowers the success of the planted trigger was tested "
    "with that trigger alone.",
)
NOTHING_PLANTED = Reading(
    "Nothing was planted here: the detectors looked at the models and the training set of this "
    "run. A score that reaches its limit is one that a clean model or set would hardly have.",
    "That nothing was found does not prove that nothing is there: weak, rare and adaptive "
    "triggers pass, and an adversary who knows the detector will try to hide from it.",
)


def _in_lab(evidence: Evidence, record: Measurement) -> bool:
    return bool(record.how.get("lab"))


def _planted(evidence: Evidence, record: Measurement) -> bool:
    return _in_lab(evidence, record) and "repair" not in record.how


def _repaired(evidence: Evidence, record: Measurement) -> bool:
    return _in_lab(evidence, record) and "repair" in record.how


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
    before, rates = record.subject.get("model"), evidence.find("attack_success_rate", lab=True)
    return [rate for rate in rates if rate.subject.get("before") == before]


def _best_repair(evidence: Evidence, record: Measurement) -> Cell:
    best = min(_after(evidence, record), key=value_of, default=None)
    return (
        (DASH,) if best is None else (number_of(best), " ", Given(str(best.how["repair"]), best.id))
    )


def _figure(evidence: Evidence) -> Figure | None:
    rates = evidence.find("attack_success_rate", lab=True)
    planted = [record for record in rates if _planted(evidence, record)]
    groups = []
    for record in planted:
        after = [(rate, "plain", str(rate.how["repair"])) for rate in _after(evidence, record)]
        if record.seed == planted[0].seed and after:
            groups.append((model_name(record), [(record, "attack", "not repaired"), *after]))
    title = "What the trigger still does after each repair"
    caption = "Red: before. Grey: after each repair; the shorter, the better. First seed."
    said = "For each backdoor, attack success before and after."
    return bars_figure(title, said, groups, (caption,)) if groups else None


def _pictures(evidence: Evidence) -> list[Gallery]:
    """Return what was planted with what was recovered beside it, a backdoor at a time."""
    shown: dict[str, Gallery] = {}
    for found in gallery_blocks(evidence, "planted", "recovered"):
        name = found.title.partition(": ")[2]
        before, title = shown.get(name, found), f"Planted, and recovered: {name}"
        both = replace(before, title=title, pictures=before.pictures + found.pictures)
        shown[name] = found if before is found else both
    return list(shown.values())


def _searches(evidence: Evidence) -> Table:
    """Return every search's answer, so that the lost ones and the false alarms are seen."""
    rows = []
    for note in evidence.notes(MODEL_SCAN, TRAINING_SET_SCAN):
        name = (str(note.facts.get("model_name")), RecordLink(note.id))
        seed, kind = Given(str(note.facts.get("seed")), note.id), "training set"
        kind = "model" if note.name == MODEL_SCAN else kind
        limits = (_fact(note, key) for key in ("score", "threshold"))
        rows.append(row(name, seed, kind, *limits, verdict(note)))
    # where nothing was planted, this is all there is to tell
    folded = bool(evidence.find("attack_success_rate", lab=True))
    columns = ("Model", "Seed", "Looked at", "Score", "Flagged from", "Answer")
    return Table("Every scan for a backdoor", columns, rows, folded)


def _fact(note: Note, key: str) -> Inline:
    value = note.facts.get(key)
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return of_fraction(float(value), key, note.id) if known else DASH  # type: ignore[arg-type]


def _auroc(evidence: Evidence, record: Measurement) -> Inline:
    areas = evidence.find("detector_auroc", lab=True)
    return number_or_dash(about(areas, record, detector=record.how.get("detector")))


def _repairs(evidence: Evidence) -> Table:
    """Return every repair, the failures included."""
    again = {}
    for count in sorted({int(record.how["planted_again"]) for record in evidence.find(AGAIN)}):
        (column,) = beside(AGAIN, planted_again=count).values()
        again[f"Success after planting {count} again"] = column
    worst = "Success from the worst class"
    sheet = Sheet(
        caption="Every repair",
        metrics=("attack_success_rate",),
        where=_repaired,
        columns={
            "Model": of_model,
            "Seed": of_seed,
            **beside("clean_accuracy"),
            **beside("clean_accuracy_difference", "Change of it"),
            heading("attack_success_rate"): of_itself,
            **beside("recovered_accuracy", "Triggered and right"),
            **beside("worst_source_success_rate", worst),
            **beside("defence_effectiveness", "Effectiveness (DER)"),
            **again,
        },
        dense=True,
        optional=(worst,),
    )
    return sheet(evidence)


def _refused(evidence: Evidence) -> list[Prose]:
    """Say which scans could not be done, and which repairs had nothing to go by."""
    told = []
    for note in evidence.notes(NO_SEARCH, NO_REPAIR):
        what = "No scan of" if note.name == NO_SEARCH else "No repair"
        said = f"{what} {note.facts.get('model_name')}: {note.facts.get('why')} "
        told.append(Prose((said, RecordLink(note.id))))
    return told


def _reading(evidence: Evidence) -> Reading:
    rates = evidence.find("attack_success_rate", lab=True)
    return PLANTED if any(_planted(evidence, rate) for rate in rates) else NOTHING_PLANTED


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
                    **beside("clean_accuracy"),
                    heading("attack_success_rate"): of_itself,
                    **beside("base_rate"),
                    **beside("detection_recall", "Poisoned images found", detector="combined"),
                    **beside("false_positive_rate", "Clean images flagged", detector="combined"),
                    "Model scan": _scanned,
                    "Success after the best repair": _best_repair,
                },
                dense=True,
                note=("The best repair is the one after which the trigger works least.",),
            ),
            _figure,
            _pictures,
            Sheet(
                caption="How often the detectors are right",
                metrics=SHARES,
                columns={"What": of_name, "Share": of_itself},
            ),
            _searches,
            Sheet(
                caption="What each detector's ranking of the training images is worth",
                metrics=("average_precision",),
                where=_in_lab,
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
