"""certify: what no adversary of a stated strength can change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from purpleteam.core.errors import UsageError, unknown
from purpleteam.core.records import Measurement, Record
from purpleteam.core.schema import model_note
from purpleteam.verbs.options import Images, Limit, Seeded, Split
from purpleteam.verbs.result import Result, table
from purpleteam.verbs.verb import Option, verb

if TYPE_CHECKING:
    from purpleteam.certify.dpa import PartitionCertificate

METHODS = ("dpa",)
NAME = "partitions"  # what the classifier that votes is called in records: it is no trained model's


@dataclass(frozen=True, kw_only=True, repr=False)
class Certified(Result):
    """Certified accuracy against a number of changed training images (DPA)."""

    stage = "certify"

    certificate: PartitionCertificate
    changes: tuple[int, ...]

    def lines(self) -> list[str]:
        proved, against = self.certificate, "certified against {} insertions or removals".format
        return table(
            [
                ("clean accuracy", proved.clean_accuracy),
                *((against(n), proved.certified_accuracy(n)) for n in sorted(set(self.changes))),
                ("half of all images are certified against", proved.median_radius),
                ("parts", proved.layout.parts),
                ("processor seconds", f"{sum(proved.seconds.values()):.1f}"),
            ]
        )


@verb(answers=True)
def certify(
    images: Images = "digits",
    labels: Any = None,
    *,
    method: Annotated[str, "dpa: against changes of the training set."] = "dpa",
    changes: Annotated[
        Any, "Training images inserted or removed, comma between."
    ] = "10,50,100,500",
    parts: Annotated[
        int | None, Option(least=1, help="Parts of the training set; by its size if absent.")
    ] = None,
    learner: Annotated[str, "How a part's network is trained: readout, networks."] = "readout",
    split: Split = None,
    limit: Limit = None,
    **given: Unpack[Seeded],
) -> Certified:
    """Prove how many training images may come or go before an answer can change.

    The certificate is for the vote of many small networks, each trained on a part of the images.
    """
    from purpleteam.certify.dpa import certify_partitions
    from purpleteam.certify.learners import seeded
    from purpleteam.verbs._subject import open_subject

    if method not in METHODS:
        raise UsageError(unknown("method", method, METHODS))
    asked, how = _numbers(changes), seeded(learner, given["seed"])
    subject = open_subject(
        images, labels, split=split, limit=limit, device="cpu", training=True, **given
    )
    dataset, chosen = subject.dataset, subject.images
    certificate = certify_partitions(
        dataset.train,
        chosen,
        classes=len(dataset.classes),
        parts=parts,
        learner=how,
        progress=subject.progress,
    )
    learned = {"training_set": dataset.train.digest}
    about = subject.about(model=certificate.digest, model_name=NAME, **learned)
    facts = certificate.to_json(asked)
    common: dict[str, Any] = {"subject": about, "cost": {"cpu_seconds": facts["seconds"]}}
    made = {name: facts[name] for name in ("method", "norm", "layout", "learner")}
    detail = {name: facts[name] for name in ("median_radius", "part_accuracy", "empty_parts")}
    clean = certificate.clean_accuracy
    records: list[Record] = [
        model_note(certificate.digest, NAME, "partitions"),
        Measurement(name="clean_accuracy", value=clean, how=made, detail=detail, **common),
    ]
    records += [
        Measurement(
            name="certified_accuracy",
            value=certificate.certified_accuracy(count),
            how=made | {"epsilon": count},
            detail={"counts": certificate.counts(count)},
            **common,
        )
        for count in sorted(set(asked))
    ]
    images_of = {"digest": chosen.digest, "split": subject.split, "limit": limit}
    return Certified(
        certificate=certificate,
        changes=tuple(asked),
        values=facts | learned | {"images": images_of, "data": subject.data(subject.split)},
        records=tuple(records),
        notes=subject.notes,
    )


def _numbers(given: Any) -> list[int]:
    try:
        numbers = [int(n) for n in (given.split(",") if isinstance(given, str) else given)]
    except (TypeError, ValueError):
        numbers = []
    if min(numbers, default=-1) < 0:
        raise UsageError(f"--changes must be numbers from 0 such as 10,50,100,500, not {given!r}")
    return numbers
