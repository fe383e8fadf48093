"""certify: what no adversary of a stated strength can change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from purpleteam.core.errors import UsageError, unknown
from purpleteam.core.records import Measurement, Record
from purpleteam.core.schema import model_note
from purpleteam.verbs.attack import listed
from purpleteam.verbs.options import Images, Measuring, Model
from purpleteam.verbs.result import Result, table
from purpleteam.verbs.verb import Option, verb

if TYPE_CHECKING:
    from purpleteam.certify.dpa import PartitionCertificate

BOUNDS = ("auto", "ibp", "crown_ibp", "crown", "alpha_crown", "complete")
METHODS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(BOUNDS, ("model", "epsilon", "seconds")),
    "dpa": (),
    "lipschitz": ("model", "epsilon", "norm"),
    "smoothing": ("model", "epsilon", "sigma", "estimation_samples", "failure_probability"),
}
"""The options that a method takes, less those of the partitions."""
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
    method: Annotated[
        str | None,
        "Of an image, in linf: auto, ibp, crown_ibp, crown, alpha_crown, complete; lipschitz, "
        "smoothing. dpa: of the training set; the default where no model and no epsilon is given.",
    ] = None,
    model: Model = None,
    epsilon: Annotated[
        Any, Option(kind=list[float], help="Radius in pixel units; repeatable: a curve.")
    ] = None,
    seconds: Annotated[
        float | None,
        "Of bounds in linf: work for one image by the dearest methods, counted in seconds of an "
        "idle core and no clock; 60 by default.",
    ] = None,
    norm: Annotated[str | None, "Of lipschitz: l2 or linf."] = None,
    sigma: Annotated[float | None, "Of smoothing: standard deviation of the noise."] = None,
    estimation_samples: Annotated[
        int | None, Option(least=1, help="Of smoothing: noisy copies of each image.")
    ] = None,
    failure_probability: Annotated[float | None, "Of smoothing: of each certificate."] = None,
    changes: Annotated[
        Any, "Training images inserted or removed, comma between."
    ] = "10,50,100,500",
    parts: Annotated[
        int | None, Option(least=1, help="Parts of the training set; by its size if absent.")
    ] = None,
    learner: Annotated[str, "How a part's network is trained: readout, networks."] = "readout",
    **given: Unpack[Measuring],
) -> Result:
    """Prove what no adversary can change: by a number of training images, or of an image.

    By `auto` bounds of the model prove, and attacks refute, until neither helps; `complete` goes on
    by branch and bound. By `dpa` it is the vote of many small networks, each trained on a part of
    the images; by `smoothing` a model's vote under noise; by `lipschitz` the model itself.
    """
    told: dict[str, Any] = {"model": model, "epsilon": epsilon, "seconds": seconds}
    told |= {"norm": norm, "sigma": sigma}
    told |= {"estimation_samples": estimation_samples, "failure_probability": failure_probability}
    told = {name: value for name, value in told.items() if value is not None}
    if method is None:
        method = "auto" if "model" in told or "epsilon" in told else "dpa"
    if method not in METHODS:
        raise UsageError(unknown("method", method, METHODS))
    if alien := [name for name in told if name not in METHODS[method]]:
        raise UsageError(f"--{alien[0].replace('_', '-')} is no option of method {method!r}")
    if method == "dpa":
        return _partitions(images, labels, changes, parts, learner, given)
    from purpleteam.verbs._ball import ball
    from purpleteam.verbs._radii import CERTIFY
    from purpleteam.verbs._subject import open_subject

    radii = [float(radius) for radius in listed(told.pop("epsilon", None))]
    model = told.pop("model", "standard")
    largest = 1.0 if method in BOUNDS else math.inf
    if wrong := [radius for radius in radii if not 0 <= radius <= largest]:
        wanted = "from 0 to 1" if method in BOUNDS else "at least 0"
        raise UsageError(f"epsilon must be {wanted}, not {wrong[0]:g}")
    opened = partial(open_subject, images, labels, model=model, measured=True, **given)
    if method in BOUNDS:
        return ball(opened, radii, method=method, **told)
    return CERTIFY[method](opened, radii, **told)


def _partitions(
    images: Any, labels: Any, changes: Any, parts: int | None, learner: str, given: Measuring
) -> Certified:
    from purpleteam.certify.dpa import certify_partitions
    from purpleteam.certify.learners import seeded
    from purpleteam.verbs._subject import open_subject

    asked, how = _numbers(changes), seeded(learner, given["seed"])
    given["device"] = "cpu"
    subject = open_subject(images, labels, training=True, **given)
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
            detail={"counts": certificate.counts(count), "wrong": certificate.wrong},
            **common,
        )
        for count in sorted(set(asked))
    ]
    images_of = {"digest": chosen.digest, "split": subject.split, "limit": subject.limit}
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
