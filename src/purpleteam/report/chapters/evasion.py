"""Attacks by evasion: the model itself under attack, over epsilon, and transferred images."""

from collections.abc import Iterator, Mapping
from typing import Any

from purpleteam.core.records import Measurement
from purpleteam.report import chapter
from purpleteam.report.blocks import TONES, checks, colour_of, galleries, matrices
from purpleteam.report.collect import UNDEFENDED, Evidence, epsilon_of, value_of
from purpleteam.report.figures import Series, curves
from purpleteam.report.numbers import heading, number_of, of_epsilon, of_fraction, soundness_of
from purpleteam.report.view import DASH, Badge, Cell, Figure, Given, Inline, Number, Table, row

TRANSFERRED = ("transfer_accuracy", "adversarial_set_accuracy")
MANY = 16
"""A table of more attacks is folded."""
ORDER = ("norm", "attack")


def _curves(evidence: Evidence) -> Iterator[Figure]:
    norms = {str(record.how.get("norm", "linf")) for record in evidence.find("robust_accuracy")}
    for norm in sorted(norms, reverse=True):
        lines = {name: line_of(evidence, name, norm) for name in evidence.models}
        lines = {name: line for name, line in lines.items() if len(line.keys() - {0.0}) > 1}
        if not lines:
            continue
        series = [
            Series(label=name, colour=colour_of(evidence, name), points=line)
            for name, line in lines.items()
        ]
        radii = sorted({epsilon for line in lines.values() for epsilon in line})
        rows = [row(curve.label, *(curve.points.get(x, DASH) for x in radii)) for curve in series]
        title = f"Robust accuracy over ε, {norm}"
        about = "One line for each model: the accuracy left under the strongest white-box attack."
        x_label = f"ε, {norm} radius in pixel units"
        svg = curves(title, about, series, x_label=x_label, y_label="robust accuracy")
        said = "At each radius the strongest white-box attack that was run counts. Bands are "
        said += "intervals of sampling only."
        said += " At zero stands the clean accuracy on the same images." if 0.0 in radii else ""
        columns = ("Model", *(f"ε = {of_epsilon(epsilon)}" for epsilon in radii))
        yield Figure(title, svg, (said,), Table(title, columns, rows, dense=True))


def line_of(evidence: Evidence, model: str, norm: str) -> dict[float, Number]:
    """Return one number for each radius: of a curve where there is one, else the lowest."""
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
    return {epsilon: number_of(line[epsilon]) for epsilon in sorted(line)}


def _attack(evidence: Evidence, record: Measurement) -> Cell:
    """Return an attack with its settings, and with the members of a ladder."""
    knowledge = str(record.how.get("knowledge", "white-box"))
    who = "" if knowledge == "white-box" else f" ({knowledge})"
    said = []
    for key in ("steps", "restarts", "step_size"):
        if (value := record.how.get(key)) is not None:
            number = f"{value:.4g}" if isinstance(value, float) else str(value)
            said.append(f"{number} {key.replace('_', ' ')}")
    ladder = _listed(record.detail.get("attacks"))
    if len(ladder) > 1:
        said.append("ladder " + ", ".join(map(_called, ladder)))
    rungs = [rung for rung in ladder if isinstance(rung, Mapping)]
    if members := [part for rung in rungs for part in _listed(rung.get("members"))]:
        said.append("which are " + ", ".join(map(_called, members)))
    last = rungs[-1].get("survived") if rungs and rungs[-1] is ladder[-1] else None
    left = last.get("value") if isinstance(last, Mapping) else None
    if isinstance(left, float) and left > value_of(record) + 1e-9:  # the check broke more
        said.append(f"alone {100 * left:.1f} %")
    settings = Given(" " + ", ".join(said) if said else "", record.id)
    return (chapter.given(record, "attack"), who, settings)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _called(rung: Any) -> str:
    return str(rung.get("name", rung.get("attack", "?")) if isinstance(rung, Mapping) else rung)


def soundness(measurement: Measurement) -> Cell:
    """Return the verdict on the evaluation itself, with its reasons."""
    sound = measurement.detail.get("soundness")
    if not isinstance(sound, Mapping):
        return ("not checked",)
    verdict, words = soundness_of(measurement), [*map(str, sound.get("reasons") or ())]
    points = round(100 * float((sound.get("checks") or {}).get("overstated_by") or 0))
    # a record from before the verdict had it among its reasons; not one of a curve
    if points > 0 and "overstates" not in sound and not measurement.how.get("curve"):
        words.append(f"a few more attacks break {points} more in 100 images")
    badge = Badge(verdict.replace("_", " "), TONES.get(verdict, "warn"))
    return (badge, Given(f" {'; '.join(words)}", measurement.id)) if words else (badge,)


def _source(evidence: Evidence, record: Measurement) -> Inline:
    source = str(record.how.get("source_model", DASH))
    source = evidence.name_of(record.how.get("made_against")) or source
    made = f", as {record.how['made_as']} makes them" if record.how.get("made_as") else ""
    return Given(source + made, record.id)


def _largest(evidence: Evidence, record: Measurement) -> Inline:
    largest = record.detail.get("largest_linf")
    return of_fraction(largest, "largest change", record.id) if isinstance(largest, float) else DASH


CHAPTER = chapter.Chapter(
    title="Attacks: evasion",
    lead="The accuracy that each model keeps against an adversary who knows it.",
    metrics=("robust_accuracy", *TRANSFERRED),
    parts=(
        galleries("evasion"),
        _curves,
        chapter.Sheet(
            caption="Each attack on each model",
            metrics=("robust_accuracy",),
            columns={
                "Model": chapter.of_model,
                "Attack": _attack,
                "Norm": chapter.of_how("norm"),
                "ε": chapter.of_how("epsilon"),
                heading("robust_accuracy"): chapter.of_itself,
                **chapter.without_ramp("robust_accuracy", "attack", "epsilon"),
                "Evaluation": lambda _, record: soundness(record),
            },
            order=lambda record: (*map(str, map(record.how.get, ORDER)), epsilon_of(record)),
            most=MANY,
            optional=(chapter.RAMPLESS,),
            note=(
                "White box throughout, unless the row says otherwise. Steps, restarts and step "
                "size are as recorded. Robust accuracy also counts what the check on the "
                "evaluation broke.",
            ),
        ),
        chapter.Sheet(
            caption="Images made against another model: no robustness",
            metrics=TRANSFERRED,
            columns={
                "Model": chapter.of_model,
                "Images made against": _source,
                "Attack": chapter.of_how("attack"),
                "ε": chapter.of_how("epsilon"),
                "Largest change": _largest,
                heading("transfer_accuracy", "Accuracy"): chapter.of_itself,
            },
            note=(
                "The largest change of a pixel is measured on the images themselves; where it "
                "exceeds ε, the images are not what they were said to be.",
            ),
        ),
        matrices(*UNDEFENDED, key="attack"),
        checks("Checks of the attacks", "attack", "attacks"),
    ),
    means="Robust accuracy counts an image only when the model classifies it correctly unchanged "
    "and under every attack tried on that very model within the radius. Pixels run from zero to "
    "one; in linf, ε is the largest change of any pixel.",
    means_not="It is an upper bound, not a guarantee. An evaluation that fails its own checks is "
    "marked as not established. Accuracy on transferred images is not robustness: an adversary who "
    "has the model need not borrow images from another.",
    checks=("attack", "attacks"),
    galleries=("evasion",),
    stage="attacks",
    gap="Evasion: no model was attacked, so nothing is known about robustness",
    try_="purple attack --model {model} --dataset {dataset} --attack autoattack",
    after="models",
)
chapter.CHAPTERS.register("evasion")(CHAPTER)
