"""Certificates: what no adversary within a bound can change, whatever it does."""

from collections.abc import Iterator, Mapping

from purpleteam.core.records import Measurement
from purpleteam.report.blocks import bars_figure, checks, galleries
from purpleteam.report.chapter import (
    CHAPTERS,
    RAMPLESS,
    Chapter,
    Column,
    Sheet,
    beside,
    of_how,
    of_itself,
    of_model,
    without_ramp,
)
from purpleteam.report.chapters.evasion import line_of
from purpleteam.report.collect import Evidence, about, epsilon_of, items, model_name
from purpleteam.report.figures import Series, curves
from purpleteam.report.numbers import heading, number_of, of_epsilon, radius
from purpleteam.report.view import DASH, Figure, Given, Inline, Table, row

WRONG = "Of them wrong as they are"  # earlier runs do not tell


def _over_epsilon(evidence: Evidence) -> Iterator[Figure]:
    """Return a figure for each model: clean, attacked and certified accuracy over epsilon."""
    for name in evidence.models_with("certified_accuracy"):
        records = [
            record for record in evidence.find("certified_accuracy", name) if _is_ball(record)
        ]
        if not records:
            continue
        sizes = {record.value.n for record in records}
        clean = [one for one in evidence.find("clean_accuracy", name) if one.value.n in sizes]
        start = {0.0: number_of(clean[-1])} if clean else {}
        proved = start | {epsilon_of(record): number_of(record) for record in records}
        series = [Series(label="certified", points=dict(sorted(proved.items())), colour=0)]
        attacked = line_of(evidence, name, "linf")
        if attacked:
            series.insert(0, Series(label="attacked", points=attacked, colour=1))
        title = f"Clean, attacked and certified accuracy over ε, {name}"
        said = "The truth lies between the two lines: no attack tried leaves less than the upper, "
        said += "no adversary at all leaves less than the lower. At zero stands the clean accuracy."
        flags = [number.flag for line in series for number in line.points.values()]
        if len({flag.partition(":")[0] if "first" in flag else "" for flag in flags}) > 1:
            said = "The lines are of different images, as the table says, so that they may cross."
        svg = curves(
            title, said, series, x_label="ε, linf radius in pixel units", y_label="accuracy"
        )
        radii = sorted({x for line in series for x in line.points})
        rows = [row(line.label, *(line.points.get(x, DASH) for x in radii)) for line in series]
        columns = ("Accuracy", *(f"ε = {of_epsilon(epsilon)}" for epsilon in radii))
        yield Figure(title, svg, (said,), Table(title, columns, rows, dense=True))


def _is_ball(record: Measurement) -> bool:
    return record.how.get("norm") == "linf" and "counts" in record.detail


def _figures(evidence: Evidence) -> Iterator[Figure]:
    """Return a figure for each other certificate: clean, then certified at each bound."""
    for name in evidence.models_with("certified_accuracy"):
        records = [one for one in evidence.find("certified_accuracy", name) if not _is_ball(one)]
        if not records:
            continue
        clean = about(evidence.find("clean_accuracy"), records[0])
        groups = [] if clean is None else [("no change", [(number_of(clean), "plain", "clean")])]
        bars = [(number_of(record), "true", "certified") for record in records]
        groups += [(bound_of(record), [bar]) for record, bar in zip(records, bars, strict=True)]
        title, said = f"Certified accuracy, {name}", "One bar for each bound."
        caption = "Each bar is a lower bound: no adversary within the bound leaves less."
        yield bars_figure(title, said, groups, (caption,))


def _stages(evidence: Evidence) -> Iterator[Table]:
    """Return which stage decided how many images, and at what cost, at each model's radii."""
    rows = [
        row(
            model_name(record),
            Given(bound_of(record), record.id),
            str(stage.get("name", "")).replace("_", "-"),
            *(
                Given(str(stage.get(key, "")), record.id)
                for key in ("looked_at", "verified", "falsified")
            ),
            Given(f"{float(record.cost.get(str(stage.get('name')), 0.0)):.1f}", record.id),
        )
        for record in evidence.find("certified_accuracy")
        for stage in items(record.detail, "stages")
        if stage.get("looked_at")
    ]
    if rows:
        columns = ("Model", "Bound", "Stage", "Images", "Verified", "Falsified", "Seconds")
        yield Table("Which stage decided", columns, rows, dense=True)


def _count(kind: str) -> Column:
    def cell(_: Evidence, record: Measurement) -> Inline:
        counts = record.detail.get("counts")
        told = {**record.detail, **(counts if isinstance(counts, Mapping) else {})}.get(kind)
        return DASH if told is None else Given(str(told), record.id)

    return cell


def bound_of(record: Measurement) -> str:
    """Return the bound within which a certificate holds."""
    bound = record.how.get("epsilon")
    if not isinstance(record.how.get("layout"), Mapping):
        return radius(bound) + (" in l2" if record.how.get("norm") == "l2" else "")
    return f"{bound} changed training image{'' if bound == 1 else 's'}"  # it counts them


def _parts(evidence: Evidence, record: Measurement) -> Inline:
    layout = record.how.get("layout")
    return Given(str(layout.get("parts", "")) if isinstance(layout, Mapping) else "", record.id)


CHAPTER = Chapter(
    title="Certificates",
    lead="What holds against every adversary within the bound, tried or not.",
    metrics=("certified_accuracy",),
    parts=(
        _over_epsilon,
        galleries("certificates"),
        _figures,
        Sheet(
            caption="Certified accuracy",
            metrics=("certified_accuracy",),
            columns={
                "Model": of_model,
                "Method": of_how("method"),
                "May fail with": of_how("failure_probability"),
                "Parts": _parts,
                **beside("clean_accuracy"),
                "Bound": lambda _, record: Given(bound_of(record), record.id),
                heading("certified_accuracy"): of_itself,
                **without_ramp("certified_accuracy", "epsilon"),
                "Verified": _count("verified"),
                "Falsified": _count("falsified"),
                WRONG: _count("wrong"),
                "Unknown": _count("unknown"),
            },
            order=lambda record: (str(record.how.get("method")), epsilon_of(record)),
            optional=(RAMPLESS, WRONG),
        ),
        _stages,
        checks("Checks of the certificates", "certify", "certificate"),
    ),
    means="Bounds propagate the whole ball through the net: an image is verified when no image "
    "within the radius is classified otherwise, falsified when one is and is shown, unknown when "
    "neither was reached. An image that is wrong as it is, without a change, is among the "
    "falsified, and is counted beside them: no attack was needed. A Lipschitz bound says how far "
    "scores move at most. Randomized smoothing "
    "certifies another classifier, the model's vote under noise, and each of its certificates may "
    "fail with a small stated probability. Deep Partition Aggregation trains many small "
    "networks, each on a part of the training set that the images' content alone decides, and lets "
    "them vote. An image that is put in or taken out can change one of them, so an answer with a "
    "wide enough lead cannot be turned by that many changed images. A replaced image counts as two "
    "changes.",
    means_not="A certificate holds for its own classifier and bound: one within a radius says "
    "nothing of larger changes, of turned or redrawn images, or of a poisoned training set; that "
    "of partitions is about their vote and the training images alone.",
    checks=("certify", "certificate"),
    stage="certify",
    gap="Certificates: nothing was proved; every robust accuracy is an upper bound that a better "
    "attack may lower",
    galleries=("certificates",),
    try_="purple certify --model {model} --dataset {dataset} --epsilon {epsilon}",
    after="poison",
)
CHAPTERS.register("certify")(CHAPTER)
