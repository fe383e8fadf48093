"""The poison lab's tables: every search, every ranking, every repair, and how they are found."""

from __future__ import annotations

from collections.abc import Iterable

from purpleteam.core.records import Measurement, Note
from purpleteam.report.collect import Evidence, model_name
from purpleteam.report.numbers import number_or_dash, of_fraction
from purpleteam.report.view import (
    DASH,
    Badge,
    Cell,
    Given,
    Inline,
    RecordLink,
    Table,
    row,
)


def success(evidence: Evidence) -> list[Measurement]:
    """Return the lab's attack success rates, those after a repair included."""
    return [one for one in evidence.find("attack_success_rate") if one.how.get("lab")]


def about(found: Iterable[Measurement], one: Measurement, **how: object) -> Measurement | None:
    """Return the first of `found` that is about the same model, done in that way."""
    model = one.subject.get("model")
    same = (other for other in found if other.subject.get("model") == model)
    return next((o for o in same if all(o.how.get(k) == v for k, v in how.items())), None)


def seed_of(one: Measurement) -> Inline:
    """Return the seed of a measurement."""
    return DASH if one.seed is None else Given(str(one.seed), one.id)


def note_about(evidence: Evidence, name: str, one: Measurement) -> Note | None:
    """Return the note of that name about the same model."""
    model = one.subject.get("model")
    return next((note for note in evidence.notes(name) if note.facts.get("model") == model), None)


def verdict(note: Note | None) -> Cell:
    """Return what a search says, and whether it is right about what was planted."""
    if note is None:
        return (DASH,)
    facts, planted = note.facts, note.facts.get("planted", {})
    if facts.get("backdoored") is None:
        reasons = "; ".join(map(str, facts.get("reasons", ()))) or "no verdict was recorded"
        return (Badge("not established", "warn"), ": ", Given(reasons, note.id))
    if facts.get("own"):
        found = bool(facts.get("backdoored"))
        return (Badge("found", "bad") if found else Badge("nothing found", "good"),)
    clean = planted.get("poison") == "none"
    if not facts.get("backdoored"):
        return (Badge("nothing found", "good" if clean else "bad"),)
    target = facts.get("target_label")
    if clean:
        badge = Badge("false alarm", "bad")
    elif target == planted.get("target_label"):
        badge = Badge("found", "good")
    else:
        badge = Badge("wrong target", "bad")
    return (badge, " to ", Given(str(target), note.id))


SHARES = {
    "model_detection_rate": "Backdoored models found, with the right target",
    "model_false_alarm_rate": "Clean models flagged",
    "training_set_detection_rate": "Poisoned training sets found, with the right target",
    "training_set_false_alarm_rate": "Clean training sets flagged",
}


def shares(evidence: Evidence) -> Table | None:
    """Return how often the searches are right, on backdoored and on clean ones."""
    rows = tuple(
        row(text, number_or_dash(one))
        for name, text in SHARES.items()
        for one in evidence.find(name)
    )
    columns = ("What", "Share")
    return (
        Table(caption="How often the searches are right", columns=columns, rows=rows)
        if rows
        else None
    )


def searches(evidence: Evidence) -> Table | None:
    """Return every search's answer, so that the lost ones and the false alarms are seen."""
    rows = tuple(
        row(
            (str(note.facts.get("model_name")), RecordLink(note.id)),
            Given(str(note.facts.get("seed")), note.id),
            "model" if note.name == "model-scan" else "training set",
            _fact(note, "score"),
            _fact(note, "threshold"),
            verdict(note),
        )
        for name in ("model-scan", "training-set-scan")
        for note in evidence.notes(name)
    )
    columns = ("Model", "Seed", "Looked into", "Score", "Flagged from", "Answer")
    folded = bool(success(evidence))  # where nothing was planted, this is all there is to tell
    return (
        Table(caption="Every search", columns=columns, rows=rows, folded=folded) if rows else None
    )


def _fact(note: Note, key: str) -> Inline:
    value = note.facts.get(key)
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return of_fraction(float(value), key, note.id) if known else DASH  # type: ignore[arg-type]


def rankings(evidence: Evidence) -> Table | None:
    """Return what each detector's ranking is worth by itself."""
    found = evidence.find("average_precision", lab=True)
    if not found:
        return None
    areas = evidence.find("detector_auroc", lab=True)
    rows = tuple(
        row(
            (model_name(one), RecordLink(one.id)),
            seed_of(one),
            Given(str(one.how.get("detector")), one.id),
            number_or_dash(about(areas, one, detector=one.how.get("detector"))),
            number_or_dash(one),
        )
        for one in found
    )
    return Table(
        caption="What each detector's ranking of the training images is worth",
        columns=("Model", "Seed", "Detector", "AUROC", "Average precision"),
        rows=rows,
        folded=True,
    )


def repairs(evidence: Evidence) -> Table | None:
    """Return every repair, the failures included."""
    found = [one for one in success(evidence) if "repair" in one.how]
    rows = tuple(
        row(
            (model_name(one), RecordLink(one.id)),
            seed_of(one),
            number_or_dash(about(evidence.find("clean_accuracy"), one)),
            number_or_dash(about(evidence.find("clean_accuracy_difference"), one)),
            number_or_dash(one),
            number_or_dash(about(evidence.find("recovered_accuracy"), one)),
            number_or_dash(about(evidence.find("defence_effectiveness"), one)),
            *(number_or_dash(other) for other in _again(evidence, one)),
        )
        for one in found
    )
    counts = _counts(evidence)
    columns = (
        "Model",
        "Seed",
        "Clean accuracy",
        "Change of it",
        "Attack success rate",
        "Triggered and right",
        "Effectiveness (DER)",
        *(f"Success after planting {count} again" for count in counts),
    )
    return Table(caption="Every repair", columns=columns, rows=rows, dense=True) if rows else None


def _counts(evidence: Evidence) -> list[int]:
    found = evidence.find("attack_success_rate_planted_again")
    return sorted({int(one.how["planted_again"]) for one in found})


def _again(evidence: Evidence, one: Measurement) -> list[Measurement | None]:
    found = evidence.find("attack_success_rate_planted_again")
    return [about(found, one, planted_again=count) for count in _counts(evidence)]
