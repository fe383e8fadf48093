"""Attacks by poisoning: attack success rate, never without base rate and clean accuracy."""

from collections.abc import Mapping
from dataclasses import replace

from purpleteam.core.records import Measurement
from purpleteam.core.schema import Role
from purpleteam.core.statistics import Estimate, Rate
from purpleteam.report import chapter, view
from purpleteam.report.blocks import galleries, matrices, trainings
from purpleteam.report.collect import Evidence, model_name, value_of
from purpleteam.report.figures import bars
from purpleteam.report.numbers import LISTED, grouped, heading, number_or_dash, of_value

ROLES: tuple[Role, ...] = ("poisoned", "clean_twin")
MEANS_OVER_TRAININGS = ("attack_success_rate_mean", "clean_accuracy_difference_mean")


def _around(place: int) -> chapter.Column:
    return lambda evidence, record: number_or_dash(evidence.around(record)[place])


def _recipe(evidence: Evidence, record: Measurement) -> view.Cell:
    parts: list[view.Inline] = []
    if record.how.get("poisoned") is not None:
        parts += [chapter.given(record, "poisoned"), " images, "]
    if "relabel" in record.how:
        parts.append("relabelled" if record.how["relabel"] else "label kept")
    if record.how.get("target_label") is not None:
        parts += [", target ", chapter.given(record, "target_label")]
    return tuple(parts) or (view.DASH,)


def _pooled(evidence: Evidence, record: Measurement) -> view.Inline:
    """Return the counts of the trainings together, or each value where they are no counts."""
    ids, mean = record.detail.get("records") or (), record.value
    rates = [training.value for training in evidence.measurements if training.id in ids]
    counts = [rate for rate in rates if isinstance(rate, Rate)]
    if counts and len(counts) == len(ids):
        hits, n = sum(rate.successes for rate in counts), sum(rate.n for rate in counts)
        return view.Given(f"{hits} of {n} in {len(counts)} trainings", record.id)
    if not isinstance(mean, Estimate):
        return view.DASH
    alone = (replace(mean, value=value) for value in mean.values)
    each = [of_value(value, record.name, record.id).text for value in alone]
    return view.Given("; ".join(each) or view.DASH, record.id)


def beside_success(*, lab: bool) -> chapter.Sheet:
    """Return what stands beside the success rates of the poison lab, or of the others."""
    change = "Clean accuracy less the clean twin's"
    return chapter.Sheet(
        caption="What stands beside the success rate",
        metrics=("triggered_accuracy",),
        where=lambda _, record: bool(record.how.get("lab")) == lab,
        columns={
            **chapter.BY_TRAINING,
            heading("triggered_accuracy", "Accuracy on all images, triggered"): chapter.of_itself,
            **chapter.beside("recovered_accuracy", "Triggered and still right"),
            **chapter.beside("clean_accuracy_difference", change),
        },
        optional=("Seed", change),
        folded=True,
    )


def _per_source(evidence: Evidence) -> view.Figure | None:
    """Return the success rate by true class of the backdoor that works best, and all as a table."""
    shown: dict[str, Measurement] = {}
    for record in evidence.find("attack_success_rate", lab=None):
        if isinstance(record.detail.get("per_source"), Mapping):
            shown.setdefault(model_name(record), record)
    if not shown:
        return None
    lines: dict[str, dict[str, view.Number]] = {}
    for name, record in shown.items():
        rates = [
            (label, rate if isinstance(rate, Rate) else Rate(**rate))
            for label, rate in record.detail["per_source"].items()
        ]
        rates.sort(key=lambda pair: (-pair[1].n if len(rates) > LISTED else 0, str(pair[0])))
        lines[name] = {
            f"true {label}": of_value(rate, record.name, record.id)
            for label, rate in rates[:LISTED]
        }
    best = max(shown.values(), key=value_of)
    groups = [(label, [(rate, "attack", "")]) for label, rate in lines[model_name(best)].items()]
    title = f"Attack success rate by true class, {model_name(best)}"
    about = "One bar for each true class; the target class itself does not count."
    words = "A backdoor that works from some classes only hides in the mean. "
    if (several := len(best.detail["per_source"])) > LISTED:
        words += f"Shown are the {LISTED} of {grouped(several)} classes with most images. "
    columns, rows = view.grid({"Model": name, **line} for name, line in lines.items())
    table = view.Table("Attack success rate by true class", columns, rows, dense=True)
    caption = (words, view.RecordLink(best.id))
    return view.Figure(title, bars(title, about, groups), caption, table, folded=True)


CHAPTER = chapter.Chapter(
    title="Attacks: poison",
    lead="What a few changed training images do.",
    metrics=("attack_success_rate", "triggered_accuracy", *MEANS_OVER_TRAININGS),
    lab=False,
    parts=(
        chapter.Sheet(
            caption="Backdoors: success, beside base rate and clean accuracy",
            metrics=("attack_success_rate",),
            where=lambda _, record: not record.how.get("lab"),
            columns={
                "Model": chapter.of_model,
                "Poison": _recipe,
                "Seed": chapter.of_seed,
                heading("clean_accuracy"): _around(0),
                heading("attack_success_rate"): chapter.of_itself,
                heading("base_rate"): _around(1),
            },
        ),
        chapter.Sheet(
            caption="Over several trainings, each a model of its own",
            metrics=MEANS_OVER_TRAININGS,
            columns={
                "Model": chapter.of_model,
                "What": chapter.of_name,
                "Mean": chapter.of_itself,
                "All trainings together, or each": _pooled,
            },
        ),
        galleries("trigger"),
        _per_source,
        beside_success(lab=False),
        matrices(*ROLES, lab=False),
        matrices(*ROLES, lab=False, key="trigger"),
        trainings("Training on poisoned data", *ROLES, lab=False),
    ),
    means="Attack success rate counts triggered images of other classes that get the label the "
    "adversary wants. The base rate is how often a clean model gives that label to the same "
    "images: only what lies above it is the backdoor's work. The interval of a mean is over "
    "trainings, which differ by their seed.",
    means_not="Accuracy on triggered images is not an attack success rate: it can be high while "
    "the backdoor works and low while it does not. Nor does an unchanged clean accuracy mean that "
    "a model is clean.",
    galleries=("trigger",),
    stage="attacks",
    gap="Poisoned training data: no backdoor was planted, so no attack success rate is known",
    try_="purple poison --dataset {dataset} --train",
    after="evasion",
)
chapter.CHAPTERS.register("poison")(CHAPTER)
