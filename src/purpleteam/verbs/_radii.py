"""certify --method smoothing and lipschitz: certified radii, each attacked from within."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.certify.lipschitz import certify_lipschitz
from purpleteam.certify.network import network_of
from purpleteam.certify.radii import RadiusCertificate, contradictions
from purpleteam.certify.smoothing import Smoothed, Smoothing, certify_smoothing, predict
from purpleteam.core.config import build
from purpleteam.core.errors import Refused
from purpleteam.core.records import Measurement
from purpleteam.core.schema import model_note
from purpleteam.models.black_box import BlackBox
from purpleteam.models.devices import device_of
from purpleteam.models.guard import Classifier, guarded
from purpleteam.verbs._subject import Subject
from purpleteam.verbs.result import Result, percent, table

EPSILONS = {"l2": (0.25, 0.5, 1.0), "linf": (0.1, 0.3)}  # where none is named
STEPS = 20  # of the attack


@dataclass(frozen=True, kw_only=True, repr=False)
class CertifiedRadii(Result):
    """Certified accuracy over radii."""

    stage = "certify"

    certificate: RadiusCertificate
    epsilons: Sequence[float]

    def lines(self) -> list[str]:
        told = self.values
        points = [stage for stage in told["stages"] if stage["epsilon"] in self.epsilons]
        named = f"certified within {{:g}} in {told['norm']}".format
        rows = [(named(at["epsilon"]), percent(at["certified_accuracy"])) for at in points]
        return table(
            [
                ("clean accuracy", percent(told["clean_accuracy"])),
                *rows,
                ("average radius", self.certificate.average_radius),
                ("abstained", told["abstained"]),
                ("attacked within their radius", told["attacked"]),
                ("processor seconds", f"{told['seconds']:.1f}"),
            ]
        )


def smoothing(subject: Subject, epsilons: Sequence[float], **options: Any) -> CertifiedRadii:
    """Certify the smoothed classifier, which is another one than the model, in L2."""
    loaded, how = subject.loaded, build(Smoothing, options | {"seed": subject.seed}, "smoothing")
    net, digest, progress = loaded.module, loaded.digest, subject.progress
    proved = certify_smoothing(net, subject.images, how, digest=digest, progress=progress)
    attacked = None if isinstance(net, BlackBox) else Smoothed(net, how.sigma)
    name = f"{loaded.name}, smoothed by {how.sigma:g}"

    def answer(x: Tensor, index: Sequence[int]) -> Sequence[int | None]:
        return predict(net, x, how, index=index)

    return _attacked(subject, proved, epsilons or EPSILONS["l2"], name, attacked, answer)


def lipschitz(subject: Subject, epsilons: Sequence[float], *, norm: str = "l2") -> CertifiedRadii:
    """Certify the model by its Lipschitz bound."""
    loaded = subject.loaded
    proved = certify_lipschitz(
        loaded.module, subject.images, norm=norm, digest=loaded.digest, progress=subject.progress
    )
    graph = network_of(loaded.module, subject.shape)  # a file of a net has no other gradients

    def answer(x: Tensor, index: Sequence[int]) -> Sequence[int | None]:
        labels: list[int] = (
            guarded(loaded.module)(x.to(device_of(loaded.module))).argmax(1).tolist()
        )
        return labels

    return _attacked(subject, proved, epsilons or EPSILONS[norm], loaded.name, graph, answer)


def _attacked(
    subject: Subject,
    proved: RadiusCertificate,
    epsilons: Sequence[float],
    name: str,
    attacked: Classifier | None,
    answer: Callable[[Tensor, Sequence[int]], Sequence[int | None]],
) -> CertifiedRadii:
    """Return the result, with its records; Refused where an attack contradicts a radius."""
    norm, tried = proved.how["norm"], 0
    for epsilon in sorted({e for e in epsilons if e > 0}):
        if attacked is None:
            break
        attack = PGD(norm=norm, epsilon=epsilon, steps=STEPS)
        found = contradictions(subject.images, proved, attack, attacked, answer, seed=subject.seed)
        tried = max(tried, sum(c.radius > epsilon for c in proved.images))
        if found:
            numbers = ", ".join(map(str, found[:5]))
            raise Refused(
                f"{len(found)} certificates of {proved.how['method']} do not hold: within "
                f"{epsilon:g} in {norm} an attack found other answers, first to images {numbers}"
            )
    about = subject.about(model=proved.classifier, model_name=name)
    how = {key: value for key, value in proved.how.items() if key != "seed"}
    facts = proved.to_json(epsilons) | {"attacked": tried}
    measured = partial(
        Measurement, subject=about, seed=subject.seed, cost={"cpu_seconds": proved.seconds}
    )
    detail = {key: facts[key] for key in ("average_radius", "abstained", "attacked")}
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
