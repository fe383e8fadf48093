"""attack: how far test images must move before a model errs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from purpleteam.cli.options import (
    Classes,
    Code,
    DatasetOption,
    Debug,
    Device,
    Json,
    Limit,
    Model,
    Normalise,
    Out,
    Quiet,
    Seed,
    Split,
    Threads,
    Weights,
    number_option,
)
from purpleteam.cli.outputs import file_to_write
from purpleteam.cli.screen import answer, percent, progress, say, table
from purpleteam.cli.usual_attack import usual_attack
from purpleteam.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from purpleteam.attacks.cross_check import CrossCheck
    from purpleteam.attacks.evasion import EvasionAttack
    from purpleteam.attacks.journal import Journal
    from purpleteam.attacks.outcomes import RobustEvaluation
    from purpleteam.core.progress import Progress
    from purpleteam.data.images import ImageSet
    from purpleteam.models.loading import LoadedModel

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(attack)


def attack(
    model: Model = "standard",
    weights: Weights = None,
    arch: Code = None,
    normalise: Normalise = None,
    classes: Classes = None,
    dataset: DatasetOption = "digits",
    split: Split = None,
    limit: Limit = None,
    attacks: Annotated[
        list[str] | None, typer.Option("--attack", help="NAME[:field=value,...]; repeatable.")
    ] = None,
    norm: Annotated[str | None, typer.Option("--norm", help="linf, l2, l1 or l0.")] = None,
    epsilons: Annotated[
        list[float] | None,
        number_option("--epsilon", "Radius in pixel units, such as 8/255; repeatable: a curve."),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images at once.")] = 500,
    cross_check: Annotated[
        bool, typer.Option("--cross-check", help="Let other libraries make the same attacks.")
    ] = False,
    out: Out = None,
    as_bytes: Annotated[
        bool, typer.Option("--as-bytes", help="Round to bytes too, and ask the model again.")
    ] = False,
    seed: Seed = 0,
    threads: Threads = None,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Robust accuracy under every attack tried, with a verdict on the evaluation itself."""
    from purpleteam.attacks.evaluate import curve
    from purpleteam.attacks.soundness import soundness_of
    from purpleteam.cli.lab import Asked, Lab

    out = file_to_write(out)
    _ladders(attacks or ["ladder"], epsilons, norm)  # said before anything is read
    asked = Asked(weights, arch, normalise, classes)
    lab = Lab.open(dataset, device=device, threads=threads, model=asked)
    loaded = lab.load(model)
    split = lab.used(split, loaded)
    images = lab.dataset.split(split).first(limit)
    usual, why = ("", []) if attacks else usual_attack(loaded, images, len(epsilons or [0]))
    ladders = _ladders(attacks or [usual], epsilons, norm)
    about = {
        "images": [images.digest, lab.dataset.validation.digest],
        "answers": lab.answers(loaded),
        "seed": seed,
        "batch_size": batch_size,
    }
    journal = _journal(loaded, ladders, about)
    if journal.batches and not quiet:
        say(f"going on where it was stopped: {journal.batches} batches are done")
    with progress(quiet or as_json) as bar:
        points = curve(
            loaded.module,
            images,
            ladders[max(ladders)],
            list(ladders),
            seed=seed,
            batch_size=batch_size,
            fit_on=lab.dataset.validation,
            journal=journal,
            progress=bar,
        )
        widest = ladders[max(ladders)]
        sound = soundness_of(loaded.module, images, widest, list(points.values()), seed=seed)
        points = {radius: one.counting(sound.breaks) for radius, one in points.items()}
        crossed = _crossed(loaded, images, widest[-1], seed, bar) if cross_check else None
    last = points[max(points)]
    rounded = last.as_bytes(loaded.module, images) if as_bytes else None
    if out is not None:
        last.save_images(out, images, rounded)
    journal.remove()
    values = _measured(points, widest[-1].norm) | {
        "soundness": sound.to_json(),
        "subject": lab.subject(loaded, split, limit),
        "notes": [*lab.notes, *why, *_notes(loaded)],
    }
    if crossed is not None:
        values["cross_check"] = crossed.to_json()
    if rounded is not None:
        kept, found = int(rounded.breaks.sum()), int((last.broken_by >= 0).sum())
        values["as_bytes"] = {"broken": found, "broken_as_bytes": kept}
        values["notes"].append(f"as bytes, {kept} of {found} adversarial examples still break it")
    values["notes"] += lab.of_part(split, limit)
    values |= lab.data(split)
    notes = [f"note: {one}" for one in (lab.dataset.summary(split), *values["notes"])]
    answer(values, [*_lines(values), "", *notes], as_json=as_json)


def _measured(points: Mapping[float, RobustEvaluation], norm: str) -> dict[str, Any]:
    """Return what was measured at each radius, and the attacks at the widest, as JSON has them."""
    last = points[max(points)]
    return {
        "clean_accuracy": last.clean_accuracy.to_json(),
        "robust_accuracy": last.robust_accuracy.to_json(),
        "attacks": [row.to_json() for row in last.attacks],
        "curve": [
            {"epsilon": radius, "norm": norm, "robust_accuracy": one.robust_accuracy.to_json()}
            for radius, one in points.items()
        ],
        "cost": {key: sum(one.cost[key] for one in points.values()) for key in last.cost},
    }


def _ladders(
    texts: list[str], epsilons: list[float] | None, norm: str | None
) -> dict[float, list[EvasionAttack]]:
    """Return the ladder of attacks for each radius: one norm and one epsilon, or no number."""
    from purpleteam.attacks.norms import NORMS
    from purpleteam.core.config import parse_part
    from purpleteam.pipeline.stages.evasion import attack_from

    first = attack_from(texts[0], norm=norm)
    usual = NORMS[first.norm].usual_epsilon or first.epsilon
    named = [text for text in texts if "epsilon" in parse_part(text)[1]]
    own = [attack_from(text, norm=norm).epsilon for text in named]
    ladders = {
        radius: [attack_from(text, epsilon=radius, norm=norm or first.norm) for text in texts]
        for radius in sorted(set(epsilons or own or [usual]))
    }
    for radius, ladder in ladders.items():
        for one, text in zip(ladder, texts, strict=True):
            if (one.norm, one.epsilon) != (ladder[0].norm, radius):
                raise UsageError(
                    f"--attack {text!r} is in {one.norm} at {one.epsilon:g}, others in "
                    f"{ladder[0].norm} at {radius:g}: measure each norm and epsilon by itself"
                )
    return ladders


def _journal(
    loaded: LoadedModel, ladders: dict[float, list[EvasionAttack]], about: dict[str, Any]
) -> Journal:
    """Return where this very evaluation keeps its finished batches until it is done."""
    import torch

    from purpleteam import __version__
    from purpleteam.attacks.journal import Journal

    return Journal.of(
        {
            "version": __version__,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "model": loaded.digest,
            "normalisation": repr(loaded.normalisation),
            "attacks": [
                [{"name": one.name, **asdict(one)} for one in ladder] for ladder in ladders.values()
            ],
            **about,
        }
    )


def _crossed(
    loaded: LoadedModel, images: ImageSet, attack: EvasionAttack, seed: int, bar: Progress
) -> CrossCheck:
    from purpleteam.attacks.cross_check import cross_check
    from purpleteam.models.black_box import BlackBox

    if isinstance(loaded.module, BlackBox):
        raise UsageError("--cross-check needs a model with gradients; this one only answers")
    place = {"model": loaded.digest, "model_name": loaded.name}
    return cross_check(
        loaded.module,
        images,
        norm=attack.norm,
        epsilon=attack.epsilon,
        seed=seed,
        place=place,
        progress=bar,
    )


def _notes(loaded: LoadedModel) -> list[str]:
    notes = list(loaded.notes)
    if waited := getattr(loaded.module, "waited", 0.0):
        notes.append(f"the classifier asked to be left alone for {waited:.1f} s in all")
    if refused := getattr(loaded.module, "refusals", 0):
        notes.append(f"the classifier refused {refused} of {loaded.module.calls} images")
    return notes


def _lines(values: dict[str, Any]) -> list[str]:
    sound = values["soundness"]
    rows = []
    for row in values["attacks"]:
        name = f"{row['name']} {row['norm']} {row['epsilon']:g}"
        rows += [
            (f"  {one['name']}", "", percent(one["survived"])) for one in row.get("members", ())
        ]
        rows.append((name, "survived", percent(row["survived"])))
    robust = percent(values["robust_accuracy"])
    if sound["verdict"] == "not_established":
        robust = f"not established (the attacks left {robust})"
    elif values["robust_accuracy"] != values["attacks"][-1]["survived"]:
        robust += ", what the check broke counted"
    lines = [f"clean accuracy   {percent(values['clean_accuracy'])}", *table(rows)]
    if len(values["curve"]) > 1:
        lines += table(
            [(f"{p['epsilon']:g}", percent(p["robust_accuracy"])) for p in values["curve"]]
        )
    lines += [f"robust accuracy  {robust}", f"soundness        {sound['verdict']}{_within(sound)}"]
    lines += [f"- {reason}" for reason in sound["reasons"]]
    if sound["cost"]:
        lines.append(
            f"model calls      {_calls(values['cost'])}; of the check {_calls(sound['cost'])}"
        )
    return lines + _crossed_lines(values.get("cross_check"))


def _within(sound: dict[str, Any]) -> str:
    """Return how far off a sound number may be."""
    by = sound["overstates"]
    if sound["verdict"] != "sound" or by is None:
        return ""
    low, high = (100 * by[end] for end in ("low", "high"))
    return f": stronger attacks break {100 * by['value']:.1f} points more ({low:.1f} to {high:.1f})"


def _calls(cost: dict[str, float]) -> str:
    return f"{cost['forward']:,.0f} forward, {cost['backward']:,.0f} backward"


def _crossed_lines(found: dict[str, Any] | None) -> list[str]:
    """Return each attack beside the same one of another library."""
    if found is None:
        return []
    rows = [
        (
            one["attack"],
            percent(one["ours"]),
            one["peer"],
            percent(one["theirs"]),
            "agree" if one["agrees"] else "DISAGREE",
        )
        for one in found["rows"]
    ]
    absent = [f"not compared: {name}: {reason}" for name, reason in found["absent"].items()]
    return ["", *table(rows), *absent]
