"""certify --method smoothing and lipschitz: certified radii, each attacked from within."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.certify.lipschitz import certify_lipschitz
from purpleteam.certify.network import network_of
from purpleteam.certify.radii import RadiusCertificate, contradictions
from purpleteam.certify.smoothing import Smoothed, Smoothing, certify_smoothing, predict
from purpleteam.core.config import build
from purpleteam.core.errors import Refused, UsageError, unknown
from purpleteam.core.records import Measurement
from purpleteam.core.schema import model_note
from purpleteam.models.guard import Classifier
from purpleteam.verbs._subject import Subject
from purpleteam.verbs.result import Result, table

EPSILONS = {"l2": (0.25, 0.5, 1.0), "linf": (0.1, 0.3)}  # where none is named
STEPS = 20  # of the attack


@dataclass(frozen=True, kw_only=True, repr=False)
class CertifiedRadii(Result):
    """Certified accuracy over radii."""

    stage = "certify"

    certificate: RadiusCertificate
    epsilons: Sequence[float]

    def lines(self) -> list[str]:
        told, proved = self.values, self.certificate
        within = f"certified within {{:g}} in {told['norm']}".format
        return table(
            [
                ("clean accuracy", proved.certified_accuracy(0)),
                *((within(e), proved.certified_accuracy(e)) for e in sorted(set(self.epsilons))),
                ("average radius", proved.average_radius),
                ("abstained", told["abstained"]),
                ("attacked within their radius", told["attacked"]),
                ("processor seconds", f"{proved.seconds:.1f}"),
            ]
        )


def smoothing(
    opened: Callable[[], Subject], epsilons: Sequence[float], **options: Any
) -> CertifiedRadii:
    """Certify the smoothed classifier, which is another one than the model, in L2."""
    asked = build(Smoothing, options, "smoothing")
    subject = opened()
    loaded, how = subject.loaded, replace(asked, seed=subject.seed)
    net, digest, progress = loaded.module, loaded.digest, subject.progress
    proved = certify_smoothing(net, subject.images, how, digest=digest, progress=progress)
    attacked = Smoothed(net, how.sigma) if getattr(net, "differentiable", True) else None
    name = f"{loaded.name}, smoothed by {how.sigma:g}"
    answer = partial(predict, net, how)
    return _attacked(subject, proved, epsilons or EPSILONS["l2"], name, attacked, answer)


def lipschitz(
    opened: Callable[[], Subject], epsilons: Sequence[float], *, norm: str = "l2"
) -> CertifiedRadii:
    """Certify the model by its Lipschitz bound."""
    if norm not in EPSILONS:
        raise UsageError(unknown("norm", norm, EPSILONS))
    subject = opened()
    net, digest, progress = subject.loaded.module, subject.loaded.digest, subject.progress
    proved = certify_lipschitz(net, subject.images, norm=norm, digest=digest, progress=progress)
    # The graph is attacked, as a file of a net has no other gradients.
    graph = network_of(net, subject.shape).to(torch.float32, torch.device("cpu"))
    return _attacked(subject, proved, epsilons or EPSILONS[norm], subject.loaded.name, graph)


def _attacked(
    subject: Subject,
    proved: RadiusCertificate,
    epsilons: Sequence[float],
    name: str,
    attacked: Classifier | None,
    answer: Callable[[Tensor, Sequence[int]], Sequence[int | None]] | None = None,
) -> CertifiedRadii:
    """Return the result, with its records; Refused where an attack contradicts a radius."""
    norm, tried = proved.how["norm"], 0
    for epsilon in sorted({e for e in epsilons if e > 0}):
        if attacked is None:
            break
        attack = PGD(norm=norm, epsilon=epsilon, steps=STEPS)
        found = contradictions(subject.images, proved, attack, attacked, answer, seed=subject.seed)
        if found:
            raise Refused(
                f"{len(found)} certificates of {proved.how['method']} do not hold: within "
                f"{epsilon:g} in {norm} an attack found other answers, first to image {found[0]}"
            )
        tried = max(tried, sum(c.radius > epsilon for c in proved.images))
    about = subject.about(model=proved.classifier, model_name=name)
    how = {key: value for key, value in proved.how.items() if key != "seed"}
    facts = proved.to_json(epsilons) | {"attacked": tried}
    cost = {"cpu_seconds": proved.seconds}
    measured = partial(Measurement, subject=about, seed=subject.seed, cost=cost)
    detail = {key: facts[key] for key in ("average_radius", "abstained", "attacked", "wrong")}
    records = [measured(name="clean_accuracy", value=proved.certified_accuracy(0), how=how)]
    records += [
        measured(
            name="certified_accuracy",
            value=proved.certified_accuracy(epsilon),
            how=how | {"epsilon": epsilon},
            detail=detail | {"counts": proved.counts(epsilon)},
        )
        for epsilon in sorted(set(epsilons))
    ]
    notes = () if attacked else ("the model only answers: no attack was made within its radii",)
    return CertifiedRadii(
        certificate=proved,
        epsilons=epsilons,
        values=facts | {"subject": about, "data": subject.data(subject.split)},
        records=(model_note(proved.classifier, name, "brought"), *records),
        notes=(*subject.notes, *notes),
    )


CERTIFY: dict[str, Callable[..., CertifiedRadii]] = {"smoothing": smoothing, "lipschitz": lipschitz}
