"""The tables about backdoors: planted, found, removed, and certified to have no effect."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from purpleteam.core.records import Measurement, Note, Record, record_from_json
from purpleteam.core.statistics import Rate, mean_over_seeds
from purpleteam.report.collect import model_name
from purpleteam.report.markdown import table
from purpleteam.report.numbers import number_of, of_value
from purpleteam.report.view import DASH, Cell, Inline, Number, Row, Table, row

__all__ = ["backdoors", "partition", "summary"]

CLEAN = "none"
SEARCHES = (
    ("model", "model-scan", ("patch", "families", "clean")),
    ("model, 100 trusted images", "model-scan", ("few",)),
    ("training set", "training-set-scan", ()),
)
"""What is scanned, by which records, of which parts; no part is all of them."""

FIFTY = "50 poisons of each family, class and number unknown, one setting for all"
FREQUENT = "Poisons that are a fifth to more than half of the images of their label"


def backdoors(path: Path) -> str:
    """Return every cell that was measured, the lost ones too."""
    found = _Found(path)
    tables = (
        _patch(found),
        _set_scans(found, "fifty", FIFTY),
        _set_scans(found, "frequent", FREQUENT),
        _rankings(found),
        _shares(found),
        _families(found),
        _repairs(found),
        _few(found),
        _again(found),
    )
    parts = ["\n".join(table(one)).strip() for one in tables if one is not None]
    parts += [curve] if (curve := _curves(found)) else []
    return "\n\n".join([*parts, *_stated(found), *_took(found), found.circumstances])


SUMMARY = {
    "Attack success rate": ("attack_success_rate", {}),
    "The same on a clean model": ("base_rate", {}),
    "Poisoned images that are flagged": ("detection_recall", {"detector": "combined"}),
    "Clean images that are flagged": ("false_positive_rate", {"detector": "combined"}),
    "Attack success after `retrain`": ("attack_success_rate", {"repair": "retrain"}),
    "Attack success after `unlearn`": ("attack_success_rate", {"repair": "unlearn"}),
}
"""What the first page tells of one backdoor, and how the records say it."""


def summary(path: Path) -> str:
    """Return one backdoor from end to end: the range over its trainings, without records."""
    found = _Found(path)
    lines = ["| 100 relabelled patch images of 55,000 | Lowest | Highest |", "| --- " * 3 + "|"]
    trainings = 0
    for told, (name, how) in SUMMARY.items():
        rows = found.measured("patch", name, **how)
        values = sorted(_value(one) for one in rows if how or "repair" not in one.how)
        trainings = max(trainings, len(values))
        lines.append(f"| {told} | {100 * values[0]:.2f} % | {100 * values[-1]:.2f} % |")
    scans = [note for note in found.notes("model-scan", "patch") if _planted(note)]
    right = sum(_verdict([note]).startswith("found") for note in scans)
    return "\n".join(lines) + (
        f"\n\n{trainings} trainings; the scan of the model found the trigger and its target label "
        f"in {right} of {len(scans)}."
    )


def _value(one: Measurement) -> float:
    return float(one.value.value)  # type: ignore[arg-type]


def _planted(note: Note) -> bool:
    return note.facts["planted"].get("poison") not in (None, "none", "unknown")


class _Found:
    """The records of results/backdoors.json by part."""

    def __init__(self, path: Path) -> None:
        self.content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        pairs = [(one["part"], record_from_json(one)) for one in self.content["records"]]
        self.parts: dict[str, list[Record]] = {}
        for part, record in pairs:
            self.parts.setdefault(part, []).append(record)

    def measured(self, part: str, name: str, **how: Any) -> list[Measurement]:
        return [
            one
            for one in self.parts.get(part, [])
            if isinstance(one, Measurement)
            and one.name == name
            and all(one.how.get(key) == value for key, value in how.items())
        ]

    def notes(self, name: str, *parts: str) -> list[Note]:
        return [
            one
            for part in parts or self.parts
            for one in self.parts.get(part, [])
            if isinstance(one, Note) and one.name == name
        ]

    @property
    def circumstances(self) -> str:
        run = self.content["run"]
        return (
            f"purpleteam {run['versions']['purpleteam']}, torch {run['versions']['torch']}, "
            f"{run['machine']['system']} {run['machine']['processor']}, real MNIST, a thread a "
            "process. Intervals are 95 %: of a rate Clopper-Pearson, over trainings a t interval, "
            "or, where all agree, a bound that holds for any distribution."
        )


def _patch(found: _Found) -> Table | None:
    """Return the relabelled patch, training by training, from planting to repair."""
    planted = [o for o in found.measured("patch", "attack_success_rate") if "repair" not in o.how]
    columns = (
        "Seed",
        "Clean accuracy",
        "Attack success rate",
        "Base rate",
        "Poisoned images found",
        "Clean images flagged",
        "Model scan",
        "Success after retrain",
        "Success after unlearn",
        "Accuracy change (unlearn)",
    )
    rows = tuple(_patch_row(found, one) for one in planted)
    caption = "100 relabelled patch images of 55,000: planted, found, removed, training by training"
    return Table(caption=caption, columns=columns, rows=rows) if rows else None


def _patch_row(found: _Found, one: Measurement) -> Row:
    def same(name: str, **how: Any) -> Inline:
        return _of([o for o in found.measured("patch", name, **how) if _about(o, one)])

    def after(name: str, repair: str) -> Inline:
        rows = found.measured("patch", name, repair=repair)
        return _of([o for o in rows if o.subject.get("before") == one.subject["model"]])

    return row(
        str(one.seed),
        same("clean_accuracy"),
        number_of(one),
        same("base_rate"),
        same("detection_recall", detector="combined"),
        same("false_positive_rate", detector="combined"),
        _verdict([n for n in found.notes("model-scan", "patch") if _of_model(n, one)]),
        after("attack_success_rate", "retrain"),
        after("attack_success_rate", "unlearn"),
        after("clean_accuracy_difference", "unlearn"),
    )


def _about(other: Measurement, one: Measurement) -> bool:
    return other.subject.get("model") == one.subject.get("model")


def _of_model(note: Note, one: Measurement) -> bool:
    return note.facts.get("model") == one.subject.get("model")


def _of(found: Sequence[Measurement]) -> Inline:
    return number_of(found[0]) if found else DASH


def _verdict(notes: Sequence[Note]) -> str:
    if not notes:
        return DASH
    facts = notes[0].facts
    if not facts["backdoored"]:
        return "lost"
    right = facts["target_label"] == facts["planted"].get("target_label")
    return f"found, to {facts['target_label']}" if right else "wrong target"


def _curves(found: _Found) -> str:
    """Return attack success over the number of poisoned images, with t intervals over trainings."""
    content = found.content.get("curve")
    if content is None:
        return ""
    curves = content["curves"]
    counts = [point["count"] for point in next(iter(curves.values()))["curve"]]
    lines = [
        "**Attack success over the number of poisoned images, mean over trainings**",
        "",
        "| Poisoned images | " + " | ".join(curves) + " |",
        "| --- | " + " | ".join("---" for _ in curves) + " |",
    ]
    for place, count in enumerate(counts):
        points = [curve["curve"][place]["attack_success_rate"] for curve in curves.values()]
        shown = (
            f"{100 * p['value']:.1f} % ({100 * p['low']:.1f} to {100 * p['high']:.1f})"
            for p in points
        )
        lines.append(f"| {count} | " + " | ".join(shown) + " |")
    trainings = len(next(iter(curves.values()))["seeds"])
    lines += [
        "",
        f"{trainings} trainings a point, `{content['architecture']}`; no poison is the base rate.",
    ]
    return "\n".join(lines)


def _set_scans(found: _Found, part: str, caption: str) -> Table | None:
    """Return how many poisons of each set of a part one default setting finds."""
    recall = found.measured(part, "detection_recall", detector="combined")
    rows = tuple(
        row(
            name,
            _mean(found.measured(part, "attack_success_rate"), name),
            _mean(recall, name),
            _mean(found.measured(part, "false_positive_rate", detector="combined"), name),
            _each(recall, name),
        )
        for name in _names(found.measured(part, "false_positive_rate"))
    )
    columns = (
        "Training set",
        "Attack success rate",
        "Found",
        "Clean images flagged",
        "By training",
    )
    return Table(caption=caption, columns=columns, rows=rows) if rows else None


def _stated(found: _Found) -> list[str]:
    """Return what the stated false-alarm rate of the scan of a training set rests on."""
    fitted = found.content.get("calibration")
    if not fitted:
        return []
    evidence = [one["evidence"] for one in fitted["sets"]]
    value, low, high = (100 * fitted["flagged"][key] for key in ("value", "low", "high"))
    return [
        "The scan of a training set states a false-alarm rate of "
        f"{100 * fitted['stated']:.0f} %. Against {len(evidence)} clean subsets of MNIST and the "
        f"embedded digits (disjoint within a draw) it had at most {max(evidence):.2f} of the "
        f"limit, and flagged {value:.0f} % ({low:.1f} to {high:.1f}); the tail of a Gumbel "
        f"distribution fitted to that is {100 * fitted['tail']:.1f} %."
    ]


def _took(found: _Found) -> list[str]:
    """Return how long the lab takes by the clock."""
    took = found.content.get("lab")
    if not took:
        return []
    return [
        f"`purple run --profile backdoors`, from planting to report: {took['seconds']:.0f} s "
        f"by the clock, {took['processes']} processes on {took['machine']['cores']} cores."
    ]


def _rankings(found: _Found) -> Table | None:
    """Return what each detector's ranking is worth, as average precision."""
    measured = found.measured("patch", "average_precision") + found.measured(
        "fifty", "average_precision"
    )
    detectors = list(dict.fromkeys(str(one.how["detector"]) for one in measured))
    rows = tuple(
        row(
            name,
            *(_mean([o for o in measured if o.how["detector"] == one], name) for one in detectors),
        )
        for name in _names(measured)
    )
    columns = ("Training set", *(one.replace("_", " ") for one in detectors))
    caption = "Average precision of each detector's ranking, mean over trainings"
    return Table(caption=caption, columns=columns, rows=rows) if rows else None


def _families(found: _Found) -> Table | None:
    """Return, family by family, what the scan of the trained models found."""
    notes = found.notes("model-scan", "patch", "families", "clean")
    groups: dict[str, list[Note]] = {}
    for note in notes:
        groups.setdefault(str(note.facts["model_name"]), []).append(note)
    success = [
        one
        for part in ("patch", "families")
        for one in found.measured(part, "attack_success_rate")
        if "repair" not in one.how
    ]
    rows = tuple(
        row(name, _mean(success, name), *_scanned(same), _seconds(same))
        for name, same in groups.items()
    )
    columns = ("Model", "Attack success rate", "Found", "Right target", "Processor seconds")
    caption = "The scan of trained models, family by family"
    return Table(caption=caption, columns=columns, rows=rows) if rows else None


def _scanned(notes: Sequence[Note]) -> tuple[str, str]:
    found = [note for note in notes if note.facts["backdoored"]]
    right = [n for n in found if n.facts["target_label"] == n.facts["planted"].get("target_label")]
    clean = all(note.facts["planted"]["poison"] == CLEAN for note in notes)
    return f"{len(found)} of {len(notes)}", DASH if clean else f"{len(right)} of {len(notes)}"


def _seconds(notes: Sequence[Note]) -> str:
    spent = [note.cost["cpu_seconds"] for note in notes if "cpu_seconds" in note.cost]
    return f"at most {max(spent):.1f} s" if spent else DASH


def _shares(found: _Found) -> Table | None:
    """Return how often scans were right, pooled over models, never over trainings."""
    rows = []
    for what, name, parts in SEARCHES:
        notes = found.notes(name, *parts)
        clean = [one for one in notes if one.facts["planted"]["poison"] == CLEAN]
        planted = [one for one in notes if one not in clean]
        if planted:
            right = [
                o.facts["backdoored"]
                and o.facts["target_label"] == o.facts["planted"]["target_label"]
                for o in planted
            ]
            rows.append(row(f"{what}: found, with the right target", _rate(right, planted)))
        if clean:
            alarms = [bool(o.facts["backdoored"]) for o in clean]
            rows.append(row(f"{what}: false alarms on clean ones", _rate(alarms, clean)))
    rows += [
        row("small model: false alarms on clean ones", of_value(one.value, "rate", one.id))
        for one in found.measured("small", "model_false_alarm_rate")
    ]
    caption = "How often the scans are right"
    return Table(caption=caption, columns=("What", "Share"), rows=tuple(rows)) if rows else None


def _rate(hits: Sequence[bool], notes: Sequence[Note]) -> Number:
    return of_value(Rate.of(sum(map(bool, hits)), len(hits)), "rate", notes[0].id)


def _repairs(found: _Found) -> Table | None:
    """Return what each repair leaves of each family, mean over trainings, failures shown."""
    parts = ("patch", "families", "removed", "frequent")
    return _repaired(found, parts, "Every repair, mean over trainings")


def _few(found: _Found) -> Table | None:
    """Return what is left where a hundred trusted images are all there is."""
    return _repaired(found, ("few",), "Repair with 100 trusted images, mean over trainings")


def _repaired(found: _Found, parts: tuple[str, ...], caption: str) -> Table | None:
    success, change = (
        [one for part in parts for one in found.measured(part, name) if "repair" in one.how]
        for name in ("attack_success_rate", "clean_accuracy_difference")
    )
    rows = tuple(row(name, _mean(success, name), _mean(change, name)) for name in _names(success))
    columns = ("Model / repair", "Attack success rate", "Change of clean accuracy")
    return Table(caption=caption, columns=columns, rows=rows) if rows else None


def _again(found: _Found) -> Table | None:
    """Return how soon a repaired model learns its backdoor again, beside a clean one."""
    measured = found.measured("patch", "attack_success_rate_planted_again")
    counts = sorted({int(one.how["planted_again"]) for one in measured})
    rows = tuple(
        row(
            name,
            *(
                _mean([o for o in measured if o.how["planted_again"] == count], name)
                for count in counts
            ),
        )
        for name in _names(measured)
    )
    columns = ("Model / repair", *(f"After {count} fresh poisons" for count in counts))
    caption = (
        "Attack success when a few poisons are planted again by fine-tuning, mean over trainings"
    )
    return Table(caption=caption, columns=columns, rows=rows) if rows else None


def _names(found: Iterable[Measurement]) -> list[str]:
    return list(dict.fromkeys(map(model_name, found)))


def _values(found: Iterable[Measurement], name: str) -> list[Measurement]:
    return [one for one in found if model_name(one) == name]


def _mean(found: Iterable[Measurement], name: str) -> Inline:
    """Return the mean over trainings with its t interval, or the one value there is."""
    same = _values(found, name)
    if len(same) < 2:
        return _of(same)
    values = [number_of(one).value for one in same]
    word = same[0].name
    bounds = (-1 if "difference" in word else 0, 1)
    return of_value(mean_over_seeds(values, bounds=bounds), word, same[0].id)


def _each(found: Iterable[Measurement], name: str) -> Cell:
    parts: list[Inline] = []
    for one in _values(found, name):
        parts += [number_of(one).text, "; "]
    return tuple(parts[:-1]) or (DASH,)


def partition(path: Path) -> str:
    """Return what Deep Partition Aggregation certifies, and what came of trying it."""
    found = json.loads(path.read_text(encoding="utf-8"))
    certificate, attack, networks = found["certificate"], found["attack"], found["networks"]
    lines = [
        "| Training images inserted or removed | Certified accuracy | Certified, wrong, unknown "
        "| Certified accuracy, `--learner networks` |",
        "| --- | --- | --- | --- |",
    ]
    for one, other in zip(certificate["stages"], networks["stages"], strict=True):
        counts = ", ".join(str(one[key]) for key in ("verified", "falsified", "unknown"))
        rates = [_percent(each["certified_accuracy"]) for each in (one, other)]
        lines.append(f"| {one['changes']} | {rates[0]} | {counts} | {rates[1]} |")
    layout = certificate["layout"]
    sentences = (
        f"{found['training_set']['images']:,} training images in {layout['parts']:,} parts of at",
        f"most {layout['capacity']}; half of the test images are certified against",
        f"{certificate['median_radius']} changes ({networks['median_radius']} with the networks);",
        f"{certificate['seconds']:.0f} s of one processor ({networks['seconds']:.0f} s).",
        f"Tried: with {attack['inserted']} poisons really inserted and everything trained again,",
        f"{attack['certified_answers_changed']} of {attack['certified_answers']:,} certified",
        f"answers changed, and the attack succeeded on {_percent(attack['attack_success_rate'])}",
        f"of triggered images, against a base rate of {_percent(attack['base_rate'])}.",
    )
    return "\n".join(lines) + "\n\n" + " ".join(sentences)


def _percent(rate: dict[str, Any]) -> str:
    shown = (100 * rate[key] for key in ("value", "low", "high"))
    value, low, high = (f"{one:.2f}" for one in shown)
    return f"{value} % ({low} to {high}, n = {rate['n']:,})"
