"""Backdoors: looked for in models and training sets, and in the lab planted and taken out again."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from purpleteam.core.records import Measurement, Note
from purpleteam.core.schema import MODEL_SCAN, NO_REPAIR, NO_SEARCH, TRAINING_SET_SCAN
from purpleteam.report import chapter, view
from purpleteam.report.blocks import bars_figure, galleries
from purpleteam.report.chapters.poison import beside_success
from purpleteam.report.collect import Evidence, about, done, model_name, value_of
from purpleteam.report.numbers import heading, number_of, number_or_dash, of_fraction

SHARES = (
    "model_detection_rate",
    "model_false_alarm_rate",
    "training_set_detection_rate",
    "training_set_false_alarm_rate",
)
AGAIN = "attack_success_rate_planted_again"
COMBINED = {"detector": "combined"}
PLANTED: dict[str, Any] = {"lab": True, "repair": None}
"""How success rates of the lab are measured before any repair."""
OF_PLANTED = view.Reading(
    "Each backdoor was planted in a training set and learned by a model of its own. The detectors "
    "were told neither class nor number nor trigger; what was planted was used only to count "
    "afterwards. The clean models show what the same detectors say where nothing was planted.",
    "A detector that finds these backdoors need not find others: an adversary who knows it will "
    "try to hide from it. And a repair that lowers the success of the planted trigger was tested "
    "with that trigger alone.",
)
NOTHING_PLANTED = view.Reading(
    "Nothing was planted here: the detectors looked at the models and the training set of this "
    "run. A score that reaches its limit is one that a clean model or set would hardly have.",
    "That nothing was found does not prove that nothing is there: weak, rare and adaptive triggers "
    "pass, and an adversary who knows the detector will try to hide from it.",
)


def _scanned(evidence: Evidence, record: Measurement) -> view.Cell:
    model, scans = record.subject.get("model"), evidence.notes(MODEL_SCAN)
    notes = (_verdict(note) for note in scans if note.facts.get("model") == model)
    return next(notes, (view.DASH,))


def _verdict(note: Note) -> view.Cell:
    """Return what a scan says, and whether it is right about what was planted."""
    facts, planted = note.facts, note.facts.get("planted", {})
    if facts.get("backdoored") is None:
        reasons = "; ".join(map(str, facts.get("reasons", ()))) or "no verdict was recorded"
        return (view.Badge("not established", "warn"), ": ", view.Given(reasons, note.id))
    target = view.Given(str(facts.get("target_label")), note.id)
    clean = planted.get("poison") == "none"
    if not facts.get("backdoored"):
        return (view.Badge("nothing found", "good" if clean or facts.get("own") else "bad"),)
    if facts.get("own"):
        return (view.Badge("found", "bad"), " to ", target)
    if clean:
        return (view.Badge("false alarm", "bad"), " to ", target)
    right = facts.get("target_label") == planted.get("target_label")
    return (view.Badge(*(("found", "good") if right else ("wrong target", "bad"))), " to ", target)


def _after(evidence: Evidence, record: Measurement) -> list[Measurement]:
    """Return the success rates of the repaired versions of a backdoored model."""
    before, rates = record.subject.get("model"), evidence.find("attack_success_rate", lab=True)
    return [rate for rate in rates if rate.subject.get("before") == before]


def _best_repair(evidence: Evidence, record: Measurement) -> view.Cell:
    best = min(_after(evidence, record), key=value_of, default=None)
    if best is None:
        return (view.DASH,)
    return (number_of(best), " ", view.Given(str(best.how["repair"]), best.id))


def _figures(evidence: Evidence) -> Iterator[view.Block]:
    """Yield attack success before and after repair, then the triggers, planted and recovered."""
    planted, groups = evidence.find("attack_success_rate", **PLANTED), []
    for record in planted:
        after = _after(evidence, record)
        bars = [(number_of(rate), "plain", str(rate.how["repair"])) for rate in after]
        if record.seed == planted[0].seed and after:
            unrepaired = (number_of(record), "attack", "not repaired")
            groups.append((model_name(record), [unrepaired, *bars]))
    title = "What the trigger still does after each repair"
    caption = "Red: before. Grey: after each repair; the shorter, the better. First seed."
    about = "For each backdoor, attack success before and after."
    if groups:
        yield bars_figure(title, about, groups, (caption,))
    shown: dict[str, view.Gallery] = {}
    for gallery in galleries("planted", "recovered")(evidence):
        name = gallery.title.partition(": ")[2]
        before, title = shown.get(name), f"Planted, and recovered: {name}"
        both = before and replace(before, title=title, pictures=before.pictures + gallery.pictures)
        shown[name] = both or gallery
    yield from shown.values()


def _scans(evidence: Evidence) -> view.Table:
    """Return the answer of every scan, so that the lost ones and the false alarms are seen."""
    rows = []
    for note in evidence.notes(MODEL_SCAN, TRAINING_SET_SCAN):
        facts = note.facts
        name = (str(facts.get("model_name")), view.RecordLink(note.id))
        seed = view.Given(str(facts.get("seed")), note.id)
        kind = "model" if note.name == MODEL_SCAN else "training set"
        limits = [
            of_fraction(float(value), key, note.id)
            if isinstance(value := facts.get(key), int | float) and not isinstance(value, bool)
            else view.DASH
            for key in ("score", "threshold")
        ]
        rows.append(view.row(name, seed, kind, *limits, _verdict(note)))
    # where nothing was planted, this is all there is to tell
    folded = bool(evidence.find("attack_success_rate", lab=True))
    columns = ("Model", "Seed", "Looked at", "Score", "Flagged from", "Answer")
    return view.Table("Every scan for a backdoor", columns, rows, folded)


def _auroc(evidence: Evidence, record: Measurement) -> view.Inline:
    areas = evidence.find("detector_auroc", lab=True)
    return number_or_dash(about(areas, record, detector=record.how.get("detector")))


def _repairs(evidence: Evidence) -> view.Table:
    """Return every repair, the failures included."""
    counts = sorted({int(record.how["planted_again"]) for record in evidence.find(AGAIN)})
    worst = "Success from the worst class"
    again = {f"Success after planting {count} again": count for count in counts}
    return chapter.Sheet(
        caption="Every repair",
        metrics=("attack_success_rate",),
        where=lambda _, record: done(record, {"lab": True}) and "repair" in record.how,
        columns={
            **chapter.BY_TRAINING,
            **chapter.beside("clean_accuracy"),
            **chapter.beside("clean_accuracy_difference", "Change of it"),
            heading("attack_success_rate"): chapter.of_itself,
            **chapter.beside("recovered_accuracy", "Triggered and right"),
            **chapter.beside("worst_source_success_rate", worst),
            **chapter.beside("defence_effectiveness", "Effectiveness (DER)"),
            **{name: chapter.number(AGAIN, planted_again=count) for name, count in again.items()},
        },
        dense=True,
        optional=(worst,),
    )(evidence)


def _refused(evidence: Evidence) -> Iterator[view.Block]:
    """Say which scans could not be done, which repairs had nothing to go by, and what it means."""
    for note in evidence.notes(NO_SEARCH, NO_REPAIR):
        task = "No scan of" if note.name == NO_SEARCH else "No repair"
        said = f"{task} {note.facts.get('model_name')}: {note.facts.get('why')} "
        yield view.Prose((said, view.RecordLink(note.id)))
    planted = evidence.find("attack_success_rate", **PLANTED)
    yield OF_PLANTED if planted else NOTHING_PLANTED


CHAPTER = chapter.Chapter(
    title="Backdoors",
    lead="What scans for backdoors say of the models and the training sets.",
    metrics=("attack_success_rate", AGAIN, *SHARES),
    lab=True,
    parts=(
        chapter.Sheet(
            caption="Attack, detection and repair",
            metrics=("attack_success_rate",),
            where=lambda _, record: done(record, PLANTED),
            columns={
                "Backdoor": chapter.of_model,
                "Seed": chapter.of_seed,
                **chapter.beside("clean_accuracy"),
                heading("attack_success_rate"): chapter.of_itself,
                **chapter.beside("base_rate"),
                **chapter.beside("detection_recall", "Poisoned images found", **COMBINED),
                **chapter.beside("false_positive_rate", "Clean images flagged", **COMBINED),
                "Model scan": _scanned,
                "Success after the best repair": _best_repair,
            },
            dense=True,
            note=("The best repair is the one after which the trigger works least.",),
        ),
        _figures,
        chapter.Sheet(
            caption="How often the detectors are right",
            metrics=SHARES,
            columns={"What": chapter.of_name, "Share": chapter.of_itself},
        ),
        _scans,
        chapter.Sheet(
            caption="What each detector's ranking of the training images is worth",
            metrics=("average_precision",),
            where=lambda _, record: done(record, {"lab": True}),
            columns={
                **chapter.BY_TRAINING,
                "Detector": chapter.of_how("detector"),
                heading("detector_auroc", "AUROC"): _auroc,
                heading("average_precision"): chapter.of_itself,
            },
            folded=True,
        ),
        _repairs,
        beside_success(lab=True),
        _refused,
    ),
    notes=(MODEL_SCAN, TRAINING_SET_SCAN, NO_SEARCH),
    stage="defences",
    gap="Backdoors: neither a model nor a training set was scanned for one",
    try_="purple detect --model {model} --dataset {dataset}",
    after="defences",
)
chapter.CHAPTERS.register("backdoors")(CHAPTER)
