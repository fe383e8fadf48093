"""Certificates: what no adversary within a bound can change, whatever it does."""

from collections.abc import Iterator, Mapping

from purpleteam.core.records import Measurement
from purpleteam.report.blocks import bars_figure, checks
from purpleteam.report.chapter import CHAPTERS, Chapter, Sheet, beside, of_how, of_itself, of_model
from purpleteam.report.collect import Evidence, about
from purpleteam.report.numbers import heading, number_of, radius
from purpleteam.report.view import Figure, Given, Inline


def _figures(evidence: Evidence) -> Iterator[Figure]:
    """Return a figure for each certified model: clean, then certified at each bound."""
    for name in evidence.models_with("certified_accuracy"):
        records = evidence.find("certified_accuracy", name)
        clean = about(evidence.find("clean_accuracy"), records[0])
        groups = [] if clean is None else [("no change", [(number_of(clean), "plain", "clean")])]
        bars = [(number_of(record), "true", "certified") for record in records]
        groups += [(bound_of(record), [bar]) for record, bar in zip(records, bars, strict=True)]
        title, said = f"Certified accuracy, {name}", "One bar for each bound."
        caption = "Each bar is a lower bound: no adversary within the bound leaves less."
        yield bars_figure(title, said, groups, (caption,))


def bound_of(record: Measurement) -> str:
    """Return the bound within which a certificate holds."""
    bound = record.how.get("epsilon")
    if not isinstance(record.how.get("layout"), Mapping):
        return radius(bound)
    return f"{bound} changed training image{'' if bound == 1 else 's'}"  # it counts them


def _parts(evidence: Evidence, record: Measurement) -> Inline:
    layout = record.how.get("layout")
    return Given(str(layout.get("parts", "")) if isinstance(layout, Mapping) else "", record.id)


CHAPTER = Chapter(
    title="Certificates",
    lead="What holds against every adversary within the bound, tried or not.",
    metrics=("certified_accuracy",),
    parts=(
        _figures,
        Sheet(
            caption="Certified accuracy",
            metrics=("certified_accuracy",),
            columns={
                "Model": of_model,
                "Method": of_how("method"),
                "Parts": _parts,
                **beside("clean_accuracy"),
                "Bound": lambda _, record: Given(bound_of(record), record.id),
                heading("certified_accuracy"): of_itself,
            },
        ),
        checks("Checks of the certificates", "certify", "certificate"),
    ),
    means="Deep Partition Aggregation trains many small networks, each on a part of the training "
    "set that the images' content alone decides, and lets them vote. An image that is put in or "
    "taken out can change one of them, so an answer with a wide enough lead cannot be turned by "
    "that many changed images. A replaced image counts as two changes.",
    means_not="The certificate is about this vote, not about the other models of the report, and "
    "about the training images alone: it says nothing of an image that is changed when it is "
    "classified.",
    checks=("certify", "certificate"),
    stage="certify",
    gap="Certificates: nothing was proved; every robust accuracy is an upper bound that a better "
    "attack may lower",
    try_="purple certify --dataset {dataset}",
    after="poison",
)
CHAPTERS.register("certify")(CHAPTER)
