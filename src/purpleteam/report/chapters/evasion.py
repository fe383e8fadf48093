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
    norms = {str(one.how.get("norm", "linf")) for one in evidence.find("robust_accuracy")}
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
            points=tuple(point_of(epsilon, one) for epsilon, one in sorted(line.items())),
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
    found = evidence.white_box(model, norm)
    line: dict[float, Measurement] = {}
    for one in [one for one in found if one.how.get("curve")] or found:
        epsilon = epsilon_of(one)
        if epsilon >= 0 and (epsilon not in line or value_of(one) < value_of(line[epsilon])):
            line[epsilon] = one
    sizes = {one.value.n for one in line.values()}
    clean = [one for one in evidence.find("clean_accuracy", model) if one.value.n in sizes]
    if line and clean:
        line.setdefault(0.0, clean[0])
    return line


def _attacks(evidence: Evidence) -> list[Block]:
    """Return each attack on each model; many of them, folded."""
    order = {name: place for place, name in enumerate(evidence.models)}
    found = sorted(
        evidence.find("robust_accuracy"),
        key=lambda one: (
            order.get(model_name(one), 99),
            str(one.how.get("norm")),
            str(one.how.get("attack")),
            epsilon_of(one),
        ),
    )
    sheet = Sheet(
        caption="Each attack on each model",
        metrics=(),
        columns={
            "Model": of_model,
            "Attack": lambda _, one: _attack(one),
            "Norm": of_how("norm"),
            "ε": of_how("epsilon"),
            heading("robust_accuracy"): of_itself,
            "Evaluation": lambda _, one: soundness(one),
        },
        folded=len(found) > MANY,
        note=(
            "White box throughout, unless the row says otherwise. Steps, restarts and step size "
            "are as recorded. Robust accuracy also counts what the check on the evaluation broke.",
        ),
    )
    return [sheet.of(evidence, found)] if found else []


def _attack(one: Measurement) -> Cell:
    knowledge = str(one.how.get("knowledge", "white-box"))
    who = "" if knowledge == "white-box" else f" ({knowledge})"
    return (given(one, "attack"), who, _settings(one))


def _settings(one: Measurement) -> Inline:
    names = {"steps": "steps", "restarts": "restarts", "step_size": "step size"}
    said = []
    for key, word in names.items():
        if (value := one.how.get(key)) is not None:
            said.append(f"{value:.4g} {word}" if isinstance(value, float) else f"{value} {word}")
    ladder = one.detail.get("attacks")
    rungs = list(ladder) if isinstance(ladder, list | tuple) else []
    if len(rungs) > 1:
        said.append("ladder " + ", ".join(map(_rung, rungs)))
    if members := [part for rung in rungs for part in _members(rung)]:
        said.append("which are " + ", ".join(map(_rung, members)))
    if (alone := _alone(one, rungs)) is not None:
        said.append(f"alone {100 * alone:.1f} %")
    return Given(" " + ", ".join(said) if said else "", one.id)


def _alone(one: Measurement, rungs: Sequence[Any]) -> float | None:
    """Return what the attack itself left, where the check on the evaluation broke more."""
    last = rungs[-1].get("survived") if rungs and isinstance(rungs[-1], Mapping) else None
    left = last.get("value") if isinstance(last, Mapping) else None
    return left if isinstance(left, float) and left > value_of(one) + 1e-9 else None


def _rung(rung: Any) -> str:
    named = isinstance(rung, Mapping)
    return str(rung.get("name", rung.get("attack", "?"))) if named else str(rung)


def _members(rung: Any) -> Sequence[Any]:
    """Return the attacks that a rung consists of, where it is several."""
    found = rung.get("members", ()) if isinstance(rung, Mapping) else ()
    return found if isinstance(found, list | tuple) else ()


def soundness(measurement: Measurement) -> Cell:
    """Return the verdict on the evaluation itself, with its reasons."""
    found = measurement.detail.get("soundness")
    if not isinstance(found, Mapping):
        return ("not checked",)
    verdict = soundness_of(measurement)
    words = "; ".join([*map(str, found.get("reasons") or ()), *_overstated(measurement)])
    badge = Badge(verdict.replace("_", " "), TONES.get(verdict, "warn"))
    return (badge, Given(f" {words}", measurement.id)) if words else (badge,)


def _overstated(measurement: Measurement) -> list[str]:
    """Say so of a record from before the verdict had it among its reasons; not of a curve."""
    found = measurement.detail["soundness"]
    points = round(100 * float((found.get("checks") or {}).get("overstated_by") or 0))
    if "overstates" in found or measurement.how.get("curve") or points <= 0:
        return []
    return [f"a few more attacks break {points} more in 100 images"]


def _source(evidence: Evidence, one: Measurement) -> Inline:
    source = evidence.name_of(one.how.get("made_against")) or str(one.how.get("source_model", DASH))
    made = f", as {one.how['made_as']} makes them" if one.how.get("made_as") else ""
    return Given(source + made, one.id)


def _largest(evidence: Evidence, one: Measurement) -> Inline:
    largest = one.detail.get("largest_linf")
    return of_fraction(largest, "largest change", one.id) if isinstance(largest, float) else DASH


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
