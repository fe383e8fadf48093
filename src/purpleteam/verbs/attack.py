"""attack: how far images must move before a model errs, and whether the evaluation is sound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from purpleteam.core.records import Record
from purpleteam.verbs.ladders import ladders_of, usual_attack
from purpleteam.verbs.options import Images, Measuring, Model
from purpleteam.verbs.result import Result, percent, table
from purpleteam.verbs.verb import Option, verb

if TYPE_CHECKING:
    from purpleteam.attacks.evaluate import Journal
    from purpleteam.attacks.evasion import EvasionAttack
    from purpleteam.attacks.outcomes import RobustEvaluation
    from purpleteam.attacks.soundness import Soundness
    from purpleteam.core.runfolder import RunFolder
    from purpleteam.core.statistics import Rate
    from purpleteam.verbs._subject import Subject

SHOWN = 6  # broken images that a run shows


@dataclass(frozen=True, kw_only=True, repr=False)
class Attacked(Result):
    """Robust accuracy at one radius or several; `evaluation` is that of the widest."""

    stage = "attacks"

    points: Mapping[float, RobustEvaluation]  # the evaluation at each radius, the smallest first
    soundness: Soundness

    @property
    def evaluation(self) -> RobustEvaluation:
        """The evaluation at the largest radius, image by image."""
        return self.points[max(self.points)]

    @property
    def clean_accuracy(self) -> Rate:
        """Share of the images that are right unchanged."""
        return self.evaluation.clean_accuracy

    @property
    def robust_accuracy(self) -> Rate:
        """Share of all images that are right clean and under every attack tried."""
        return self.evaluation.robust_accuracy

    @property
    def verdict(self) -> str:
        """What the evaluation is worth: sound, weak or not_established."""
        return self.soundness.verdict

    def lines(self) -> list[str]:
        values, sound = self.values, self.values["soundness"]
        rows = []
        for row in values["attacks"]:
            name = f"{row['name']} {row['norm']} {row['epsilon']:g}"
            rows += [(f"  {m['name']}", "", percent(m["survived"])) for m in row.get("members", ())]
            rows.append((name, "survived", percent(row["survived"])))
        robust = percent(values["robust_accuracy"])
        if sound["verdict"] == "not_established":
            robust = f"not established (the attacks left {robust})"
        elif values["robust_accuracy"] != values["attacks"][-1]["survived"]:
            robust += ", what the check broke counted"
        lines = [f"clean accuracy   {percent(values['clean_accuracy'])}", *table(rows)]
        if beside := values.get("without_ramp"):
            clean, left = map(percent, beside.values())
            lines.append(f"without the ramp {left}, clean {clean}")
        if len(values["curve"]) > 1:
            points = [(f"{p['epsilon']:g}", percent(p["robust_accuracy"])) for p in values["curve"]]
            lines += table(points)
        held = self._held() if sound["verdict"] == "sound" else ""
        lines += [f"robust accuracy  {robust}", f"soundness        {sound['verdict']}{held}"]
        lines += [f"- {reason}" for reason in sound["reasons"]]
        if sound["cost"]:
            made, check = (
                f"{cost['forward']:,.0f} forward, {cost['backward']:,.0f} backward"
                for cost in (values["cost"], sound["cost"])
            )
            lines.append(f"model calls      {made}; of the check {check}")
        if (crossed := values.get("cross_check")) is not None:
            agree = {True: "agree", False: "DISAGREE"}
            compared = [
                (
                    r["attack"],
                    percent(r["ours"]),
                    r["peer"],
                    percent(r["theirs"]),
                    agree[r["agrees"]],
                )
                for r in crossed["rows"]
            ]
            lines += ["", *table(compared)]
            absent = crossed["absent"].items()
            lines += [f"not compared: {name}: {reason}" for name, reason in absent]
        return lines

    def _held(self) -> str:
        """Return what became of a sound number when it was checked."""
        from purpleteam.core.statistics import Rate

        by, left = self.soundness.overstates, self.evaluation.attacks[-1].survived
        if by is None:
            return ""
        more, low, high = (
            100 * end for end in (by.value, by.low, max(by.value, min(by.high, left.high)))
        )
        if not isinstance(by, Rate):  # the same examples, of which other draws were asked
            word = "lower" if more >= 0 else "higher"
            more, low, high = (more, low, high) if more >= 0 else (-more, -high, -low)
            return (
                f": asked again, the number is {more:.1f} points {word} ({low:.1f} to {high:.1f})"
            )
        if by.value == self.robust_accuracy.value == 0:
            return ": no image is left that a stronger attack could break"
        return f": stronger attacks break {more:.1f} points more ({low:.1f} to {high:.1f})"


def listed(given: Any) -> list[Any]:
    """Return what is given as a list: several, one, or none."""
    given = list(given) if isinstance(given, list | tuple) else [given]
    return [] if given == [None] else given


@verb()
def attack(
    model: Model = "standard",
    images: Images = "digits",
    labels: Any = None,
    *,
    attack: Annotated[
        Any, Option(kind=list[str], help="NAME[:field=value,...]; repeatable.")
    ] = None,
    norm: Annotated[str | None, "linf, l2, l1 or l0."] = None,
    epsilon: Annotated[
        Any,
        Option(kind=list[float], help="Radius in pixel units, such as 8/255; repeatable: a curve."),
    ] = None,
    batch_size: Annotated[int, Option(least=1, help="Images at once.")] = 500,
    checked: Annotated[
        int, Option(least=1, help="Images that the check of the evaluation looks at.")
    ] = 500,
    cross_check: Annotated[bool, "Let other libraries make the same attacks."] = False,
    as_bytes: Annotated[bool, "Round to bytes too, and ask the model again."] = False,
    **given: Unpack[Measuring],
) -> Attacked:
    """Robust accuracy under every attack tried, with a verdict on the evaluation itself.

    Args:
        attack: names, `EvasionAttack`s or a sequence of them: the ladder, climbed in order; the
            strongest that model and time allow where none is named.
        epsilon: a radius or several, in pixel units of [0, 1].

    Raises:
        UsageError: the attacks are in different balls, or one needs what the model lacks.
    """
    from purpleteam.attacks.cross_check import cross_check as compare
    from purpleteam.attacks.evaluate import curve, evaluate
    from purpleteam.attacks.soundness import soundness_of
    from purpleteam.verbs._subject import open_subject
    from purpleteam.verbs.outputs import file_to_write

    target = file_to_write(given["out"])
    radii, asked = [float(radius) for radius in listed(epsilon)], listed(attack)
    ladders_of(asked or ["ladder"], radii, norm)  # said before anything is read
    subject = open_subject(images, labels, model=model, measured=True, **given)
    loaded, chosen, seed = subject.loaded, subject.images, subject.seed
    usual, why = ("", []) if asked else usual_attack(subject, len(radii or [0]))
    ladders = ladders_of(asked or [usual], radii, norm, subject.shape[0])
    # of a set that does not fit in memory: what the checks look at, or all that was asked for
    kept = len(chosen) if as_bytes or target is not None else checked
    journal = _journal(subject, list(ladders.values()), batch_size, kept)
    notes = [*subject.notes, *why]
    if journal.batches:
        notes.append(f"went on where it was stopped: {journal.batches} batches were done")
    widest = ladders[max(ladders)]
    fit_on, progress = subject.dataset.validation, subject.progress
    how: dict[str, Any] = {"seed": seed, "batch_size": batch_size, "fit_on": fit_on}
    how |= {"kept": kept, "journal": journal, "progress": progress}
    points = curve(loaded.module, chosen, widest, list(ladders), **how)
    evaluations = list(points.values())
    sound = soundness_of(loaded.module, chosen, widest, evaluations, seed=seed, looked_at=checked)
    points = {radius: point.counting(sound.breaks) for radius, point in points.items()}
    last = points[max(points)]
    values: dict[str, Any] = {
        "clean_accuracy": last.clean_accuracy.to_json(),
        "robust_accuracy": last.robust_accuracy.to_json(),
        "attacks": [row.to_json() for row in last.attacks],
        "curve": [
            {
                "epsilon": radius,
                "norm": last.attacks[-1].norm,
                "robust_accuracy": point.robust_accuracy.to_json(),
            }
            for radius, point in points.items()
        ],
        "cost": {key: sum(p.cost[key] for p in points.values()) for key in last.cost},
        "soundness": sound.to_json(),
        "subject": subject.about(),
        "data": subject.data(subject.split),
    }
    findings: tuple[Record, ...] = ()
    if (bare := subject.without_ramp) is not None:
        how["journal"] = journal.part("without-ramp")
        beside = evaluate(bare.loaded.module, chosen, *widest, **how)
        told = ("clean_accuracy", "robust_accuracy")
        values["without_ramp"] = {name: getattr(beside, name).to_json() for name in told}
        measured = beside.measurement(bare.about(), seed=seed, detail={})
        findings = (replace(measured, name="robust_accuracy_without_ramp"),)
    if cross_check:
        subject.check_white_box("--cross-check: --model", "other libraries need gradients")
        crossed = compare(
            loaded.module,
            chosen,
            norm=widest[-1].norm,
            epsilon=widest[-1].epsilon,
            seed=seed,
            place={"model": loaded.digest, "model_name": loaded.name},
            progress=subject.progress,
        )
        values["cross_check"] = crossed.to_json()
        findings = (*findings, *crossed.findings)
    rounded = last.as_bytes(loaded.module, chosen) if as_bytes else None
    if target is not None:
        last.save_images(target, chosen, rounded)
    if waited := getattr(loaded.module, "waited", 0.0):
        notes.append(f"the classifier asked to be left alone for {waited:.1f} s in all")
    if refused := getattr(loaded.module, "refusals", 0):
        calls = f"{loaded.module.calls:,} calls, those that look at the model included"
        notes.append(f"the classifier refused {refused:,} of {calls}: no label, or NaN")
    if rounded is not None:
        kept, broken = int(rounded.breaks.sum()), int((last.broken_by >= 0).sum())
        values["as_bytes"] = {"broken": broken, "broken_as_bytes": kept}
        notes.append(f"as bytes, {kept} of {broken} adversarial examples still break it")
    records = _records(subject, points, sound)
    journal.remove()
    return Attacked(
        points=points,
        soundness=sound,
        values=values,
        records=(*records, *findings, subject.part()),
        notes=tuple(notes),
    )


def _journal(
    subject: Subject, ladders: list[list[EvasionAttack]], batch_size: int, kept: int
) -> Journal:
    """Return where this very evaluation keeps its finished batches until it is done."""
    from purpleteam.core.digest import sha256_bytes
    from purpleteam.models.black_box import BlackBox
    from purpleteam.models.inference import logits

    loaded, answers = subject.loaded, subject.loaded.digest
    if not isinstance(loaded.module, BlackBox):  # a factory's code may change, not its weights
        answers = sha256_bytes(
            logits(loaded.module, subject.dataset.validation.images[:8]).tobytes()
        )
    return subject.journal(
        model=loaded.digest,
        normalisation=repr(loaded.normalisation),
        answers=answers,
        images=[subject.images.digest, subject.dataset.validation.digest],
        attacks=[
            [{"name": attack.name, **asdict(attack)} for attack in ladder] for ladder in ladders
        ],
        batch_size=batch_size,
        kept=kept,
    )


def _records(
    subject: Subject, points: Mapping[float, RobustEvaluation], sound: Soundness
) -> list[Record]:
    """Return one measurement for each radius; into a run go outcomes and pictures as well."""
    about, detail = subject.about(), {"soundness": sound.to_json()}
    how: dict[str, Any] = {"curve": True} if len(points) > 1 else {}
    rates = [
        point.measurement(about, seed=subject.seed, detail=detail, **how)
        for point in points.values()
    ]
    if (run := subject.run) is None:
        return [*rates]
    last, made_by = points[max(points)], rates[-1].id
    name = "+".join(row.name for row in last.attacks).replace(":", "-").replace("/", "-")
    path = run.path / "outcomes" / f"{name}-{max(points):g}-{made_by}.npz"
    last.save_outcomes(path)
    return [*rates, run.artefact(path, made_by), *_broken(subject, run, last, made_by)]


def _broken(
    subject: Subject, run: RunFolder, evaluation: RobustEvaluation, made_by: str
) -> list[Record]:
    """Show images that the evaluation broke: clean, what was added, and what is read then."""
    import numpy as np

    from purpleteam.models.inference import logits
    from purpleteam.verbs._pictures import Picture, as_picture, gallery, signed_picture

    kept = evaluation.kept
    rows = kept[evaluation.broken_by[kept] >= 0][:SHOWN]
    images, x_adv = subject.images.take(rows), np.asarray(evaluation.x_adv[rows])
    last, names = evaluation.attacks[-1], subject.dataset.classes
    read = logits(subject.loaded.module, as_picture(x_adv)).argmax(1) if len(rows) else rows
    pictures: list[Picture] = []
    for i, (clean, label) in enumerate(zip(images.images, images.labels, strict=True)):
        stem = f"{made_by}-{i}"
        perturbation = x_adv[i] - clean / np.float32(255)
        spread = last.epsilon if last.norm == "linf" else float(np.abs(perturbation).max())
        pictures += [
            (f"{stem}-clean", np.array(clean), f"a {names[int(label)]}"),
            (f"{stem}-perturbation", signed_picture(perturbation, spread), "added"),
            (f"{stem}-adversarial", as_picture(x_adv[i]), f"read as {names[int(read[i])]}"),
        ]
    standing, of = int((evaluation.broken_by == -1).sum()), len(evaluation.broken_by)
    title = (
        f"{subject.loaded.name}: clean, perturbation, adversarial "
        f"({last.name}, epsilon {last.epsilon:g} in {last.norm})"
    )
    none = f"No attack broke an image: {standing} of {of} stand."
    none = none if standing else f"The model reads none of the {of} images rightly."
    none = none if len(kept) == of else f"Of the {len(kept)} that are kept no image was broken."
    return gallery(run, "evasion", title, pictures, none=none, made_by=made_by)
