"""certify by bounds: which images no adversary within epsilon in L-infinity can change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from purpleteam.attacks.evaluate import evaluate
from purpleteam.attacks.evasion.apgd import APGDCE
from purpleteam.certify.ball import FALSIFIED, SHOWN, VERIFIED, BallCertificate, Stage
from purpleteam.certify.cascade import certify_ball
from purpleteam.certify.network import network_of
from purpleteam.certify.onnx_writer import write_onnx
from purpleteam.core.errors import Refused, UsageError
from purpleteam.core.records import Measurement, Record
from purpleteam.data.images import ImageSet
from purpleteam.models.black_box import session_of
from purpleteam.verbs._pictures import Picture, as_picture, gallery, signed_picture
from purpleteam.verbs._subject import Subject
from purpleteam.verbs.result import Result, percent, table

EPSILONS = (0.1,)  # where none is named
ATTACKED = 100  # verified images that are attacked, as a check of the bounds themselves


@dataclass(frozen=True, kw_only=True, repr=False)
class CertifiedBall(Result):
    """Certified accuracy in balls of several radii; `certificate` is that of the largest."""

    stage = "certify"

    certificates: Mapping[float, BallCertificate]

    @property
    def certificate(self) -> BallCertificate:
        return self.certificates[max(self.certificates)]

    def lines(self) -> list[str]:
        told = self.values
        rows: list[tuple[str, object]] = [("clean accuracy", percent(told["clean_accuracy"]))]
        for point in told["curve"]:
            epsilon, counts = point["epsilon"], point["counts"]
            told_of = dict.fromkeys(counts, "")
            if wrong := point["wrong"]:
                told_of[FALSIFIED] = f" ({wrong} of them wrong as they are)"
            said = ", ".join(f"{count} {kind}{told_of[kind]}" for kind, count in counts.items())
            rows.append((f"certified in linf {epsilon:g}", percent(point["certified_accuracy"])))
            rows.append(("", said))
        if (bare := told.get("without_ramp")) is not None:
            rows.append(("without the ramp", percent(bare["certified_accuracy"])))
        for stage in told["stages"]:
            if stage["looked_at"]:
                said = f"{stage['verified']} verified, {stage['falsified']} falsified"
                of = f"of {stage['looked_at']} in {stage['seconds']:.1f} s"
                rows.append((f"  {stage['name']}", f"{said} {of}"))
        rows.append(("verified images attacked", told["attacked"]))
        return table(rows)


def ball(
    opened: Callable[[], Subject],
    epsilons: Sequence[float],
    *,
    method: str = "auto",
    seconds: float = 60.0,
) -> CertifiedBall:
    """Certify the images at each radius, the largest first: what holds there holds below."""
    if not seconds > 0:
        raise UsageError(f"--seconds {seconds:g} is no number of seconds above 0")
    subject = opened()
    loaded, images = subject.loaded, subject.images
    certificates: dict[float, BallCertificate] = {}
    known = None
    onnx = write_onnx(network_of(loaded.module, subject.shape).to(torch.float32))
    session = session_of("net.onnx", onnx)

    def confirm(proved: BallCertificate, part: ImageSet) -> BallCertificate:
        return proved.replayed(session, part)

    for epsilon in sorted(set(epsilons or EPSILONS), reverse=True):
        known = certify_ball(
            loaded.module,
            images,
            epsilon=epsilon,
            method=method,
            seconds=seconds,
            known=known,
            seed=subject.seed,
            device=subject.device,
            confirm=confirm,
            progress=subject.progress,
        )
        certificates[epsilon] = known
    certificates = dict(sorted(certificates.items()))
    attacked = _attacked(subject, certificates[max(certificates)])
    points = [
        {
            "epsilon": epsilon,
            "certified_accuracy": one.certified_accuracy.to_json(),
            "counts": one.counts,
            "wrong": one.wrong,
        }
        for epsilon, one in certificates.items()
    ]
    last = certificates[max(certificates)]
    values: dict[str, Any] = {
        **last.how,
        "clean_accuracy": last.clean_accuracy.to_json(),
        "certified_accuracy": last.certified_accuracy.to_json(),
        "counts": last.counts,
        "wrong": last.wrong,
        "curve": points,
        "stages": [stage.to_json() for stage in last.stages],
        "seconds": round(sum(s.seconds for c in certificates.values() for s in c.stages), 2),
        "attacked": attacked,
        "subject": subject.about(),
        "data": subject.data(subject.split),
    }
    beside: list[Record] = []
    if (bare := subject.without_ramp) is not None:
        plain = certify_ball(
            bare.loaded.module,
            images,
            epsilon=last.epsilon,
            method="crown_ibp",
            device=subject.device,
            progress=subject.progress,
        )
        values["without_ramp"] = {
            "clean_accuracy": plain.clean_accuracy.to_json(),
            "certified_accuracy": plain.certified_accuracy.to_json(),
        }
        name = "certified_accuracy_without_ramp"
        beside.append(
            Measurement(
                name=name, value=plain.certified_accuracy, subject=bare.about(), how=plain.how
            )
        )
    notes = dict.fromkeys(note for one in certificates.values() for note in one.notes)
    return CertifiedBall(
        certificates=certificates,
        values=values,
        records=(subject.part(), *_records(subject, certificates, attacked), *beside),
        notes=(*subject.notes, *notes),
    )


def _attacked(subject: Subject, proved: BallCertificate) -> int:
    """Attack verified images; Refused where one is broken, since then the bounds are wrong."""
    rows = np.flatnonzero(proved.verdicts == VERIFIED)[:ATTACKED]
    net = subject.loaded.module
    differentiable = getattr(net, "differentiable", True)
    if len(rows) == 0 or proved.epsilon == 0 or not differentiable:
        return 0
    attack = APGDCE(epsilon=proved.epsilon, steps=20).inside_box()
    result = evaluate(
        net, subject.images.take(rows), attack, seed=subject.seed, progress=subject.progress
    )
    if len(broken := rows[~result.robust]):
        first = ", ".join(map(str, broken[:5]))
        raise Refused(
            f"{len(broken)} certificates do not hold: within {proved.epsilon:g} an attack broke "
            f"images that are verified, first {first}"
        )
    return len(rows)


def _records(
    subject: Subject, certificates: Mapping[float, BallCertificate], attacked: int
) -> list[Record]:
    about, run = subject.about(), subject.run
    records: list[Record] = []
    for epsilon, proved in certificates.items():
        cost = {stage.name: stage.seconds for stage in proved.stages}
        cost |= {"seconds": round(sum(cost.values()), 2)}
        measured = partial(Measurement, subject=about, seed=subject.seed, cost=cost)
        how = {key: value for key, value in proved.how.items() if key != "epsilon"}
        if epsilon == min(certificates):
            records.append(measured(name="clean_accuracy", value=proved.clean_accuracy, how=how))
        detail = {
            "counts": proved.counts,
            "wrong": proved.wrong,
            "stages": [_without_clock(stage) for stage in proved.stages],
            "attacked": attacked if epsilon == max(certificates) else 0,
        }
        record = measured(
            name="certified_accuracy",
            value=proved.certified_accuracy,
            how=proved.how,
            detail=detail,
        )
        records.append(record)
        if run is not None:
            path = run.path / "outcomes" / f"certified-{proved.method}-{epsilon:g}-{record.id}.npz"
            proved.save_outcomes(path)
            records.append(run.artefact(path, record.id))
            if epsilon == max(certificates):
                records += _counterexamples(subject, proved, record.id)
    return records


def _without_clock(stage: Stage) -> dict[str, Any]:
    return {key: value for key, value in stage.to_json().items() if key != "seconds"}


def _counterexamples(subject: Subject, proved: BallCertificate, made_by: str) -> list[Record]:
    """Show images that were falsified: clean, what was added, and what is read then."""
    from purpleteam.models.inference import logits

    run = subject.run
    moved = (proved.verdicts == FALSIFIED) & (proved.decided_by != "clean")
    rows = [row for row in np.flatnonzero(moved).tolist() if row in proved.counterexamples][:SHOWN]
    if run is None or len(rows) == 0:
        return []
    names = subject.dataset.classes
    x_adv = np.stack([proved.counterexamples[row].transpose(1, 2, 0) for row in rows])
    read = logits(subject.loaded.module, as_picture(x_adv)).argmax(1)
    images, pictures = subject.images.take(rows), list[Picture]()
    for place, (clean, label) in enumerate(zip(images.images, images.labels, strict=True)):
        stem = f"{made_by}-{place}"
        added = x_adv[place] - clean / np.float32(255)
        pictures += [
            (f"{stem}-clean", np.array(clean), f"a {names[int(label)]}"),
            (f"{stem}-perturbation", signed_picture(added, proved.epsilon), "added"),
            (f"{stem}-found", as_picture(x_adv[place]), f"read as {names[int(read[place])]}"),
        ]
    title = (
        f"{subject.loaded.name}: falsified within {proved.epsilon:g} in linf: "
        "clean, perturbation, counterexample"
    )
    return gallery(run, "certificates", title, pictures, made_by=made_by)
