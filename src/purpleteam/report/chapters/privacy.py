"""Privacy: which training images a model gives away, and who may copy it."""

from collections.abc import Iterator

from purpleteam.core.records import Measurement
from purpleteam.core.statistics import Rate
from purpleteam.report.blocks import checks, galleries
from purpleteam.report.chapter import (
    CHAPTERS,
    Chapter,
    Column,
    Sheet,
    of_how,
    of_itself,
    of_model,
)
from purpleteam.report.collect import Evidence, items, model_name
from purpleteam.report.figures import Series, curves
from purpleteam.report.numbers import heading, number_of, of_value
from purpleteam.report.view import DASH, Figure, Given, Inline, Number, Prose, Table, row

DECADES = 3  # of false-positive rates that a figure shows
FALSE_POSITIVES = (0.001, 0.01)


def _roc(evidence: Evidence) -> Iterator[Figure]:
    """Return a figure for each model: members found over others wrongly called members."""
    for name in evidence.models_with("membership_auroc"):
        found = evidence.find("membership_auroc", name)
        series = [
            Series(label=str(record.how.get("attack")), points=_points(record), colour=place % 8)
            for place, record in enumerate(found)
        ]
        series.append(_guessing(found[0], len(series)))
        title = f"Membership inference, {name}"
        said = "Training images recognised, over others taken for them, both on logarithmic axes."
        svg = curves(
            title,
            said,
            series,
            x_label="others taken for training images",
            y_label="training images recognised",
            decades=DECADES,
        )
        rows = [
            row(line.label, *(line.points.get(rate, DASH) for rate in FALSE_POSITIVES))
            for line in series
        ]
        columns = ("Attack", *(f"at {100 * rate:g} %" for rate in FALSE_POSITIVES))
        caption = ("What matters is the left: who is recognised for sure.",)
        yield Figure(title, svg, caption, Table(title, columns, rows, dense=True))


def _points(record: Measurement) -> dict[float, Number]:
    members = int(record.detail.get("members", 0) or 0)
    return {
        float(point["rate"]): of_value(
            Rate.of(int(point["found"]), members), "membership_rate", record.id
        )
        for point in items(record.detail, "curve")
    }


def _guessing(record: Measurement, colour: int) -> Series:
    """Return the line of whoever tosses a coin of that bias."""
    rates = (10.0**-DECADES, 0.01, 0.1, 1.0)
    points = {
        rate: Number(text=f"{100 * rate:g} %", value=rate, records=(record.id,), ends=(rate, rate))
        for rate in rates
    }
    return Series(label="guessing", points=points, colour=colour % 8)


def _same(name: str, *keys: str, **how: float) -> Column:
    """Return a column that shows another metric of the same attack on the same model."""

    def cell(evidence: Evidence, record: Measurement) -> Inline:
        for other in evidence.find(name, model_name(record)):
            alike = all(other.how.get(key) == record.how.get(key) for key in keys)
            if alike and all(other.how.get(key) == value for key, value in how.items()):
                return number_of(other)
        return DASH

    return cell


def _of_detail(key: str) -> Column:
    """Return a column that shows a number beside the measurement."""
    return lambda _, record: Given(f"{float(record.detail[key]):.3g}", record.id)


ATTACK = ("attack", "shadows", "queries")
COPY = ("strategy", "answers", "queries")


def _doubts(evidence: Evidence) -> Iterator[Prose]:
    """Say where members and others differ without any training."""
    for record in evidence.find("membership_auroc"):
        if not record.detail.get("trusted", True):
            said = f"{model_name(record)}, {record.how.get('attack')}: "
            said += str(record.detail.get("doubt", "the images differ without any training"))
            yield Prose((said,), "callout")


def _copies(evidence: Evidence) -> Iterator[Figure]:
    """Return a figure for each model: agreement of its copies over the questions asked."""
    for name in evidence.models_with("copy_agreement"):
        lines: dict[str, dict[float, Number]] = {}
        for record in evidence.find("copy_agreement", name):
            label = f"{record.how.get('strategy')}, {record.how.get('answers')}"
            lines.setdefault(label, {})[float(record.how["queries"])] = number_of(record)
        series = [
            Series(label=label, points=dict(sorted(points.items())), colour=place % 8)
            for place, (label, points) in enumerate(lines.items())
        ]
        title = f"Copies of {name}"
        said = "Test images that a copy labels as the model does, over the questions asked."
        svg = curves(title, said, series, x_label="questions", y_label="agreement")
        asked = sorted({queries for line in series for queries in line.points})
        rows = [row(line.label, *(line.points.get(n, DASH) for n in asked)) for line in series]
        columns = ("Questions", *(f"{n:,.0f}" for n in asked))
        yield Figure(title, svg, (said,), Table(title, columns, rows, dense=True))


CHAPTER = Chapter(
    title="Privacy",
    lead="Which training images the model gives away, who can rebuild them, and who can copy it.",
    metrics=(
        *("membership_rate", "membership_auroc", "copy_agreement", "rebuilt_recognised"),
        "epsilon_audited",
    ),
    parts=(
        _doubts,
        _roc,
        Sheet(
            caption="Membership inference",
            metrics=("membership_auroc",),
            columns={
                "Model": of_model,
                "Attack": of_how("attack"),
                "Needs": of_how("answers"),
                "Shadow models": of_how("shadows"),
                heading("membership_rate", "At 0.1 % false"): _same(
                    "membership_rate", *ATTACK, false_positive_rate=0.001
                ),
                heading("membership_rate", "At 1 % false"): _same(
                    "membership_rate", *ATTACK, false_positive_rate=0.01
                ),
                heading("membership_advantage", "Advantage"): _same(
                    "membership_advantage", *ATTACK
                ),
                heading("membership_auroc", "AUROC"): of_itself,
            },
            optional=("Shadow models", "At 0.1 % false"),
        ),
        _copies,
        Sheet(
            caption="Copies from answers",
            metrics=("copy_agreement",),
            columns={
                "Model": of_model,
                "Questions": of_how("queries"),
                "Chosen": of_how("strategy"),
                "Answers": of_how("answers"),
                heading("copy_agreement", "Agreement"): of_itself,
                heading("copy_accuracy", "Accuracy of the copy"): _same("copy_accuracy", *COPY),
            },
        ),
        galleries("rebuilt"),
        Sheet(
            caption="Images rebuilt from the model",
            metrics=("rebuilt_recognised",),
            columns={
                "Model": of_model,
                "Attack": of_how("attack"),
                "Prior": of_how("prior"),
                "Questions": of_how("queries"),
                heading("rebuilt_recognised", "Recognised by another net"): of_itself,
                "Verdict": lambda _, record: Given(str(record.detail.get("verdict")), record.id),
            },
            optional=("Questions",),
        ),
        Sheet(
            caption="Audit of the private training",
            metrics=("epsilon_audited",),
            columns={
                "Model": of_model,
                "Canaries": of_how("canaries"),
                "Delta": of_how("delta"),
                heading("epsilon_audited", "Epsilon, at least"): of_itself,
                "By the accountant, at most": _of_detail("epsilon_upper"),
                "Verdict": lambda _, record: Given(
                    "holds" if record.detail.get("holds") else "leaks more than it says", record.id
                ),
            },
        ),
        checks("Checks of privacy", "privacy"),
    ),
    means="Membership inference asks of an image whether the model has learned it. Its rate is "
    "counted where hardly any other image is taken for one that was learned, since an attack that "
    "is right on average may be sure of nobody. Shadow models are trained in the same way on "
    "random halves of the images, so that each image was learned by half of them. A copy is "
    "trained on the model's answers to the questions asked.",
    means_not="No attack that fails proves that nothing leaks: these are lower bounds of what an "
    "adversary can do; only a training with differential privacy bounds it from above. "
    "Of public images, such as those that come with the program, nothing private is at stake. "
    "With images of people, patients or customers each of these rates is somebody's data. A "
    "rebuilt image that looks like its class is no leak: it must be nearer to training images "
    "than to others.",
    checks=("privacy",),
    galleries=("rebuilt",),
    stage="privacy",
    gap="Privacy: whether the model gives away its training images, or can be copied from its "
    "answers, was not tried",
    try_="purple privacy --model {model} --dataset {dataset}",
    after="defences",
)
CHAPTERS.register("privacy")(CHAPTER)
