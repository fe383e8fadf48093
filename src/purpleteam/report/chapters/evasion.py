"""Attacks by evasion: the model itself under attack, over epsilon, and transferred images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from purpleteam.core.records import Measurement
from purpleteam.report.blocks import checks, colour_of, galleries, matrices, point_of
from purpleteam.report.chapter import (
    CHAPTERS,
    Chapter,
    Sheet,
    given,
    of_how,
    of_itself,
    of_model,
)
from purpleteam.report.collect import UNDEFENDED, Evidence, epsilon_of, model_name, value_of
from purpleteam.report.figures import Series, curves
from purpleteam.report.numbers import heading, number_of, of_fraction, soundness_of
from purpleteam.report.view import DASH, Badge, Block, Cell, Figure, Given, Inline, Table, row

TONES = {"sound": "good", "weak": "warn", "not_established": "bad"}
TRANSFERRED = ("transfer_accuracy", "adversarial_set_accuracy")
MANY = 16
"""A table of more attacks is folded."""


def _curves(evidence: Evidence) -> list[Block]:
    norms = {str(record.how.get("norm", "linf")) for record in evidence.find("robust_accuracy")}
    figures = [_curve(evidence, norm) for norm in sorted(norms, reverse=True)]
    return [figure for figure in figures if figure is not None]


def _curve(evidence: Evidence, norm: str) -> Figure | None:
    lines = {name: _line(evidence, name, norm) for name in evidence.models}
    lines = {name: line for name, line in lines.items() if len(line.keys() - {0.0}) > 1}
    if not lines:
        return None
    radii = sorted({epsilon for line in lines.values() for epsilon in line})
    series = [
        Series(
            label=name,
            colour=colour_of(evidence, name),
            points=tuple(point_of(epsilon, record) for epsilon, record in sorted(line.items())),
        )
        for name, line in lines.items()
    ]
    title = f"Robust accuracy over ε, {norm}"
    rows = tuple(
        row(name, *(number_of(line[epsilon]) if epsilon in line else DASH for epsilon in radii))
        for name, line in lines.items()
    )
    return Figure(
        title=title,
        svg=curves(
            title,
            "One line for each model: the accuracy left under the strongest white-box attack.",
            series,
            x_label=f"ε, {norm} radius in pixel units",
            y_label="robust accuracy",
        ),
        caption=(
            "At each radius the strongest white-box attack that was run counts. Bands are "
            "intervals of sampling only."
            + (" At zero stands the clean accuracy on the same images." if 0.0 in radii else ""),
        ),
        table=Table(
            caption=title,
            columns=("Model", *(f"ε = {epsilon:.4g}" for epsilon in radii)),
            rows=rows,
            folded=True,
            dense=True,
        ),
    )


def _line(evidence: Evidence, model: str, norm: str) -> dict[float, Measurement]:
    """Return one measurement for each radius: of a curve where there is one, else the lowest."""
    records = evidence.white_box(model, norm)
    line: dict[float, Measurement] = {}
    for record in [record for record in records if record.how.get("curve")] or records:
        epsilon = epsilon_of(record)
        if epsilon >= 0 and (epsilon not in line or value_of(record) < value_of(line[epsilon])):
            line[epsilon] = record
    sizes = {record.value.n for record in line.values()}
    clean = [record for record in evidence.find("clean_accuracy", model) if record.value.n in sizes]
    if line and clean:
        line.setdefault(0.0, clean[0])
    return line


def _attacks(evidence: Evidence) -> list[Block]:
    """Return each attack on each model; many of them, folded."""
    order = {name: place for place, name in enumerate(evidence.models)}
    records = sorted(
        evidence.find("robust_accuracy"),
        key=lambda record: (
            order.get(model_name(record), 99),
            str(record.how.get("norm")),
            str(record.how.get("attack")),
            epsilon_of(record),
        ),
    )
    sheet = Sheet(
        caption="Each attack on each model",
        metrics=(),
        columns={
            "Model": of_model,
            "Attack": lambda _, record: _attack(record),
            "Norm": of_how("norm"),
            "ε": of_how("epsilon"),
            heading("robust_accuracy"): of_itself,
            "Evaluation": lambda _, record: soundness(record),
        },
        folded=len(records) > MANY,
        note=(
            "White box throughout, unless the row says otherwise. Steps, restarts and step size "
            "are as recorded. Robust accuracy also counts what the check on the evaluation broke.",
        ),
    )
    return [sheet.of(evidence, records)] if records else []


def _attack(record: Measurement) -> Cell:
    knowledge = str(record.how.get("knowledge", "white-box"))
    who = "" if knowledge == "white-box" else f" ({knowledge})"
    return (given(record, "attack"), who, _settings(record))


def _settings(record: Measurement) -> Inline:
    names = {"steps": "steps", "restarts": "restarts", "step_size": "step size"}
    said = []
    for key, word in names.items():
        if (value := record.how.get(key)) is not None:
            said.append(f"{value:.4g} {word}" if isinstance(value, float) else f"{value} {word}")
    ladder = record.detail.get("attacks")
    rungs = list(ladder) if isinstance(ladder, list | tuple) else []
    if len(rungs) > 1:
        said.append("ladder " + ", ".join(map(_rung, rungs)))
    if members := [part for rung in rungs for part in _members(rung)]:
        said.append("which are " + ", ".join(map(_rung, members)))
    if (alone := _alone(record, rungs)) is not None:
        said.append(f"alone {100 * alone:.1f} %")
    return Given(" " + ", ".join(said) if said else "", record.id)


def _alone(record: Measurement, rungs: Sequence[Any]) -> float | None:
    """Return what the attack itself left, where the check on the evaluation broke more."""
    last = rungs[-1].get("survived") if rungs and isinstance(rungs[-1], Mapping) else None
    left = last.get("value") if isinstance(last, Mapping) else None
    return left if isinstance(left, float) and left > value_of(record) + 1e-9 else None


def _rung(rung: Any) -> str:
    named = isinstance(rung, Mapping)
    return str(rung.get("name", rung.get("attack", "?"))) if named else str(rung)


def _members(rung: Any) -> Sequence[Any]:
    """Return the attacks that a rung consists of, where it is several."""
    members = rung.get("members", ()) if isinstance(rung, Mapping) else ()
    return members if isinstance(members, list | tuple) else ()


def soundness(measurement: Measurement) -> Cell:
    """Return the verdict on the evaluation itself, with its reasons."""
    sound = measurement.detail.get("soundness")
    if not isinstance(sound, Mapping):
        return ("not checked",)
    verdict = soundness_of(measurement)
    words = "; ".join([*map(str, sound.get("reasons") or ()), *_overstated(measurement)])
    badge = Badge(verdict.replace("_", " "), TONES.get(verdict, "warn"))
    return (badge, Given(f" {words}", measurement.id)) if words else (badge,)


def _overstated(measurement: Measurement) -> list[str]:
    """Say so of a record from before the verdict had it among its reasons; not of a curve."""
    sound = measurement.detail["soundness"]
    points = round(100 * float((sound.get("checks") or {}).get("overstated_by") or 0))
    if "overstates" in sound or measurement.how.get("curve") or points <= 0:
        return []
    return [f"a few more attacks break {points} more in 100 images"]


def _source(evidence: Evidence, record: Measurement) -> Inline:
    source = evidence.name_of(record.how.get("made_against")) or str(
        record.how.get("source_model", DASH)
    )
    made = f", as {record.how['made_as']} makes them" if record.how.get("made_as") else ""
    return Given(source + made, record.id)


def _largest(evidence: Evidence, record: Measurement) -> Inline:
    largest = record.detail.get("largest_linf")
    return of_fraction(largest, "largest change", record.id) if isinstance(largest, float) else DASH


CHAPTERS.register("evasion")(
    Chapter(
        title="Attacks: evasion",
        lead="How far each model bends when the adversary can see all of it.",
        metrics=("robust_accuracy", *TRANSFERRED),
        parts=(
            galleries("evasion"),
            _curves,
            _attacks,
            Sheet(
                caption="Images made against another model: no robustness",
                metrics=TRANSFERRED,
                columns={
                    "Model": of_model,
                    "Images made against": _source,
                    "Attack": of_how("attack"),
                    "ε": of_how("epsilon"),
                    "Largest change": _largest,
                    heading("transfer_accuracy", "Accuracy"): of_itself,
                },
                note=(
                    "The largest change of a pixel is measured on the images themselves; where it "
                    "exceeds ε, the images are not what they were said to be.",
                ),
            ),
            lambda evidence: matrices(evidence, *UNDEFENDED, key="attack"),
            checks("Checks of the attacks", "attack", "attacks"),
        ),
        means="Robust accuracy counts an image only when the model classifies it correctly "
        "unchanged and under every attack tried on that very model within the radius. Pixels run "
        "from zero to one; in linf, ε is the largest change of any pixel.",
        means_not="It is an upper bound, not a guarantee. An evaluation that fails its own checks "
        "is marked as not established. Accuracy on transferred images is not robustness: an "
        "adversary who has the model need not borrow images from another.",
        checks=("attack", "attacks"),
        galleries=("evasion",),
        stage="attacks",
        gap="Evasion: no model was attacked, so nothing is known about robustness",
        try_="purple attack --model {model} --dataset {dataset} --attack autoattack",
        after="models",
    )
)
