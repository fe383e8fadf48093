"""Attacks by evasion: the model itself under attack, over epsilon, and transferred images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from purpleteam.core.records import Measurement
from purpleteam.core.statistics import Counts
from purpleteam.report.blocks import checks_block, colour_of, galleries, given, matrices
from purpleteam.report.collect import Evidence, model_name, team
from purpleteam.report.figures import Point, Series, curves
from purpleteam.report.numbers import number_of, of_fraction
from purpleteam.report.published import beside, with_published
from purpleteam.report.view import (
    DASH,
    Badge,
    Block,
    Cell,
    Chapter,
    Figure,
    Given,
    Inline,
    Missing,
    Reading,
    RecordLink,
    Row,
    Table,
    row,
)

MEANS = (
    "Robust accuracy counts an image only when the model reads it rightly unchanged and under "
    "every attack tried on that very model within the radius. Pixels run from zero to one, so ε "
    "is the largest change of any pixel."
)
MEANS_NOT = (
    "It is an upper bound, not a guarantee. An evaluation that fails its own checks is marked as "
    "not established. Accuracy on transferred images is not robustness: an adversary who has the "
    "model need not borrow images from another."
)
TONES = {"sound": "good", "weak": "warn", "not_established": "bad"}


def chapter(evidence: Evidence) -> Chapter:
    """Return the chapter."""
    blocks: list[Block] = []
    found = evidence.find("robust_accuracy")
    if not found:
        blocks.append(Missing("No model was attacked, so nothing is known about robustness."))
    norms = sorted({str(one.how.get("norm", "linf")) for one in found}, reverse=True)
    for norm in norms:
        figure = _curve(evidence, norm)
        blocks += [figure] if figure is not None else []
    blocks += galleries(evidence, "evasion")
    blocks += [_robust_table(evidence, found)] if found else []
    transferred = [one for one in evidence.measurements if one.name in TRANSFERRED]
    blocks += [_transfer_table(evidence, transferred)] if transferred else []
    blocks += _matrices(evidence)
    checks = evidence.checks("attack", "attacks")
    blocks += [checks_block(checks, "Checks of the attacks", "")] if checks else []
    blocks.append(Reading(MEANS, MEANS_NOT))
    lead = "How far each model bends when the attacker can see all of it."
    return Chapter(id="evasion", title="Attacks: evasion", lead=lead, blocks=tuple(blocks))


TRANSFERRED = ("transfer_accuracy", "adversarial_set_accuracy")


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
            points=tuple(_point(epsilon, one) for epsilon, one in sorted(line.items())),
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
            columns=("Model", *(f"ε = {epsilon:g}" for epsilon in radii)),
            rows=rows,
            folded=True,
            dense=True,
        ),
    )


def _line(evidence: Evidence, model: str, norm: str) -> dict[float, Measurement]:
    """Return one measurement for each radius: of a curve where there is one, else the lowest."""
    found = evidence.white_box(model, norm)
    found = [one for one in found if one.how.get("curve")] or found
    line: dict[float, Measurement] = {}
    for one in found:
        epsilon = one.how.get("epsilon")
        if isinstance(epsilon, int | float):
            before = line.get(float(epsilon))
            if before is None or number_of(one).value < number_of(before).value:
                line[float(epsilon)] = one
    sizes = {one.value.n for one in line.values()}
    clean = [one for one in evidence.find("clean_accuracy", model) if one.value.n in sizes]
    if line and clean:
        line.setdefault(0.0, clean[0])
    return line


def _point(epsilon: float, one: Measurement) -> Point:
    value = one.value
    middle = number_of(one).value
    low, high = (middle, middle) if isinstance(value, Counts) else (value.low, value.high)
    return Point(x=epsilon, y=middle, low=low, high=high, record=one.id)


def _robust_table(evidence: Evidence, found: Sequence[Measurement]) -> Table:
    order = {name: place for place, name in enumerate(evidence.models)}
    ordered = sorted(
        found,
        key=lambda one: (
            order.get(model_name(one), 99),
            str(one.how.get("norm")),
            str(one.how.get("attack")),
            float(one.how.get("epsilon") or 0),
        ),
    )
    columns = ("Model", "Attack", "Norm", "ε", "Robust accuracy", "Evaluation", "Published")
    return Table(
        caption="Each attack on each model",
        columns=columns,
        rows=tuple(_robust_row(evidence, one) for one in ordered),
        folded=len(ordered) > 16,
        note=(
            "White box throughout, unless the row says otherwise. Steps, restarts and step size "
            "are as recorded. Robust accuracy also counts what the check on the evaluation broke.",
        ),
    )


def _robust_row(evidence: Evidence, one: Measurement) -> Row:
    knowledge = str(one.how.get("knowledge", "white-box"))
    attack: list[Inline] = [given(one, "attack")]
    if knowledge != "white-box":
        attack.append(f" ({knowledge})")
    attack += [_settings(one)]
    return row(
        (model_name(one), RecordLink(one.id)),
        tuple(attack),
        given(one, "norm"),
        given(one, "epsilon"),
        number_of(one),
        soundness(one),
        beside(evidence, one),
        record=one.id,
    )


def _settings(one: Measurement) -> Inline:
    names = {"steps": "steps", "restarts": "restarts", "step_size": "step size"}
    said = [
        f"{one.how[key]:.4g} {word}"
        if isinstance(one.how[key], float)
        else f"{one.how[key]} {word}"
        for key, word in names.items()
        if one.how.get(key) is not None
    ]
    ladder = one.detail.get("attacks")
    if isinstance(ladder, list | tuple):
        if len(ladder) > 1:
            said.append("ladder " + ", ".join(_rung(rung) for rung in ladder))
        members = [part for rung in ladder for part in _members(rung)]
        if members:
            said.append("which are " + ", ".join(_rung(part) for part in members))
        if (alone := _alone(one, ladder)) is not None:
            said.append(f"alone {100 * alone:.1f} %")
    return Given(" " + ", ".join(said) if said else "", one.id)


def _alone(one: Measurement, ladder: Sequence[Any]) -> float | None:
    """Return what the attack itself left, where the check on the evaluation broke more."""
    last = ladder[-1].get("survived") if ladder and isinstance(ladder[-1], Mapping) else None
    left = last.get("value") if isinstance(last, Mapping) else None
    more = isinstance(left, float) and left > number_of(one).value + 1e-9
    return left if more else None


def _rung(rung: Any) -> str:
    return (
        str(rung.get("name", rung.get("attack", "?"))) if isinstance(rung, Mapping) else str(rung)
    )


def _members(rung: Any) -> Sequence[Any]:
    """Return the attacks that a rung consists of, where it is several."""
    found = rung.get("members", ()) if isinstance(rung, Mapping) else ()
    return found if isinstance(found, list | tuple) else ()


def soundness(measurement: Measurement) -> Cell:
    """Return the verdict on the evaluation itself, with its reasons."""
    found = measurement.detail.get("soundness")
    if not isinstance(found, Mapping):
        return ("not checked",)
    verdict = str(found.get("verdict", "not_established"))
    reasons = found.get("reasons") or ()
    words = "; ".join([*map(str, reasons), *_overstated(measurement)])
    badge = Badge(verdict.replace("_", " "), TONES.get(verdict, "warn"))
    return (badge, Given(f" {words}", measurement.id)) if words else (badge,)


def _overstated(measurement: Measurement) -> list[str]:
    """Say so of a record from before the verdict had it among its reasons; not of a curve."""
    if "overstates" in measurement.detail["soundness"]:
        return []
    checks = measurement.detail["soundness"].get("checks")
    by = checks.get("overstated_by") if isinstance(checks, Mapping) else None
    if not isinstance(by, int | float) or measurement.how.get("curve"):
        return []
    points = round(100 * by)
    return [f"a few more attacks break {points} more in 100 images"] if points > 0 else []


def _transfer_table(evidence: Evidence, found: Sequence[Measurement]) -> Table:
    return Table(
        caption="Images made against another model: what both seeds called robustness",
        columns=("Model", "Images made against", "Attack", "ε", "Largest change", "Accuracy"),
        rows=tuple(_transfer_row(evidence, one) for one in found),
        note=(
            "The largest change of a pixel is measured on the images themselves; where it exceeds "
            "ε, the images are not what they were said to be.",
        ),
    )


def _transfer_row(evidence: Evidence, one: Measurement) -> Row:
    source = evidence.name_of(one.how.get("made_against")) or str(one.how.get("source_model", DASH))
    made = f", as {one.how['made_as']} makes them" if one.how.get("made_as") else ""
    largest = one.detail.get("largest_linf", DASH)
    return row(
        (model_name(one), RecordLink(one.id)),
        Given(source + made, one.id),
        given(one, "attack"),
        given(one, "epsilon"),
        of_fraction(largest, "largest change", one.id) if isinstance(largest, float) else DASH,
        with_published(evidence, one),
        record=one.id,
    )


def _matrices(evidence: Evidence) -> list[Block]:
    found = [
        one
        for one in evidence.find("confusion_matrix")
        if one.how.get("attack") and team(model_name(one)) != "defence"
    ]
    return matrices(found)
