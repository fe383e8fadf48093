"""poison: a few changed training images, and what they buy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from purpleteam.core.records import Measurement, Record
from purpleteam.verbs.options import Arch, Beside, Epochs, Images, Model, whole_numbers
from purpleteam.verbs.outputs import folder_to_write, write_answer
from purpleteam.verbs.result import LISTED, Result, percent, table
from purpleteam.verbs.trained import check_arch, fit, part, train_and_store
from purpleteam.verbs.verb import Option, verb

if TYPE_CHECKING:
    from purpleteam.attacks.poison import PoisonAttack, PoisonedSet
    from purpleteam.models.loading import LoadedModel
    from purpleteam.models.recipes import Recipe
    from purpleteam.verbs._subject import Subject


@dataclass(frozen=True, kw_only=True, repr=False)
class Poisoned(Result):
    """A poisoned training set and, where it was learned, what its trigger does."""

    stage = "attacks"

    def lines(self) -> list[str]:
        values = self.values
        if "curve" in values:
            rows = [("poisons", "attack success rate", "clean accuracy")]
            rows += [
                (str(p["count"]), percent(p["attack_success_rate"]), percent(p["clean_accuracy"]))
                for p in values["curve"]
            ]
            facts = table([(key, values[key]) for key in ("dataset", "poison", "file")])
            n = len(values["seeds"])
            return [*facts, f"mean over {n} trainings with its 95 % t interval:", *table(rows)]
        shown: list[tuple[str, Any]] = [
            (key, values[key]) for key in ("dataset", "poison", "poisoned", "cover", "target_label")
        ]
        rates: tuple[str, ...] = ("clean_accuracy",)
        if values["shows"] == "trigger":
            rates += ("attack_success_rate", "base_rate", "triggered_accuracy")
        shown += [(key.replace("_", " "), percent(values[key])) for key in rates if key in values]
        if "victim" in values:
            text = "image {index}, a {label} read as {read_as}".format_map(values["victim"])
            shown.append(("victim", text))
        lines = table(shown)
        if "per_source" in values and values["shows"] == "trigger":
            lines += ["attack success rate by true class:"]
            sources = list(values["per_source"].items())
            names = values["classes"]
            shown = [(f"  {names[int(k)]}", percent(rate)) for k, rate in sources[:LISTED]]
            lines += table(shown)
            if (rest := len(sources) - LISTED) > 0:
                lines += [f"  and {rest} more: in --json"]
        return lines


@verb()
def poison(
    images: Images = "digits",
    labels: Any = None,
    *,
    attack: Annotated[
        Any,
        "badnets, blended, sig, wanet, tact, adaptive_blend, adaptive_patch, "
        "clean_label, witches_brew, label_flip, with [:field=value,...], also of the "
        "trigger: badnets:trigger.size=4.",
    ] = "badnets",
    count: Annotated[int | None, Option(least=1, help="Images poisoned.")] = None,
    rate: Annotated[float | None, "The same as a share of the training images."] = None,
    target_label: Annotated[int | None, Option(least=0, help="Label the adversary wants.")] = None,
    sources: Annotated[Any, "Poisoned classes: other, target, any, or labels: 1,3."] = None,
    cover: Annotated[
        int | None, Option(least=0, help="Images with the trigger that keep their label.")
    ] = None,
    train: Annotated[bool, "Train on it and measure the backdoor."] = False,
    curve: Annotated[Any, "Train with each of these counts instead: 10,20,50,100."] = None,
    trainings: Annotated[
        int, Option(least=2, name="--trainings", help="Trainings for each count of --curve.")
    ] = 5,
    model: Model = None,
    arch: Arch = None,
    recipe: Annotated[Any, "Training recipe."] = "plain",
    epochs: Epochs = None,
    **given: Unpack[Beside],
) -> Poisoned:
    """Change a few training images; with --train or --curve, say what that buys.

    Args:
        model: a clean model for the base rate; one is trained where it is absent.
    """
    from purpleteam.attacks.poison.asked import poison_from
    from purpleteam.models.architectures import usual_architecture
    from purpleteam.models.recipes import RECIPES
    from purpleteam.verbs._subject import code_of, open_subject

    check_arch(arch)
    taught = part(RECIPES, recipe, "recipe", epochs=epochs)
    if isinstance(sources, str) and any(c.isdigit() for c in sources):
        sources = whole_numbers(sources, "--sources")
    asked = {
        "count": count,
        "rate": rate,
        "target_label": target_label,
        "sources": sources,
        "cover": cover,
    }
    counts = None if curve is None else whole_numbers(curve, "--curve")
    if isinstance(attack, str):
        poison_from(attack, asked, dataset=None)  # said before anything is read
    clean, code = model if train else None, code_of(arch, model)
    subject = open_subject(images, labels, model=clean, arch=code, training=True, **given)
    dataset, arch = subject.dataset, arch or usual_architecture(subject.shape)
    plan = poison_from(attack, asked, dataset=dataset) if isinstance(attack, str) else attack
    several = [replace(plan, count=n, rate=None) for n in counts or () if n]
    for planned in several if counts is not None else [plan]:
        test = dataset.test if train or counts else None
        planned.check(dataset.train, seed=subject.seed, test=test)
    if train or counts:
        subject.net(arch)  # what cannot be built is refused before anything is written
    if counts is not None:
        values, records = _curve(subject, plan, arch, taught, counts, trainings, given["out"])
    else:
        values, records = _set(subject, plan, arch, taught, given["out"], train)
    values |= {"data": subject.data()}
    return Poisoned(values=values, records=tuple(records), notes=subject.notes)


def _set(
    subject: Subject,
    plan: PoisonAttack,
    arch: str,
    recipe: Recipe,
    out: Path | str | None,
    train: bool,
) -> tuple[dict[str, Any], list[Record]]:
    """Write the poisoned dataset; where asked, train on it and measure."""
    from purpleteam.attacks.poison.evaluate import evaluate_backdoor, evaluate_victim
    from purpleteam.data.folders import save_dataset
    from purpleteam.models.loading import LoadedModel
    from purpleteam.models.weights import digest_of

    data, channels = subject.dataset, subject.dataset.shape[2]
    made = plan.apply(
        data.train, seed=subject.seed, validation=data.validation, progress=subject.progress
    )
    changed = replace(data, name=f"{data.name}-{plan.name}", train=made.images)
    folder = folder_to_write(out or Path("data") / changed.name)
    save_dataset(changed, folder, made.manifest)
    values: dict[str, Any] = {
        "dataset": str(folder),
        "digest": made.images.digest,
        "manifest_digest": made.manifest_digest,
        "poison": plan.name,
        "shows": plan.shown,
        "poisoned": len(made.indices),
        "cover": len(made.cover),
        "rate": made.rate,
        "target_label": plan.target_label,
        "trigger": plan.trigger.describe(channels),
    }
    if not train:
        return values, []
    how: dict[str, Any] = {"images": made.images, "poison": plan.describe(channels)}
    trained = train_and_store(subject, folder / "model", arch, recipe, "poisoned", **how)
    card, victim = trained.stored.card, trained.training.module
    whose = "trained: same recipe and seed on the clean set"
    if (clean := subject.model) is None:
        net = fit(subject, subject.net(arch), recipe, data.train, "train the clean model").module
        clean = LoadedModel("clean", digest_of(net), net)
    else:
        whose = clean.name
    backdoor = evaluate_backdoor(victim, data.test, plan, clean_model=clean.module)
    values |= {"model": str(trained.stored.weights), **backdoor.to_json()}
    values["classes"] = list(data.classes)
    if plan.shown == "victim":
        for key, net in {"victim": victim, "victim_of_clean_model": clean.module}.items():
            values[key] = evaluate_victim(net, data.validation, made.manifest).to_json()
    values |= {"clean_model": whose, "recipe": asdict(recipe)}
    subject = replace(subject, model=LoadedModel(card.name, card.digest, victim, card))
    return values, [*trained.records, *backdoor_records(subject, clean, plan, made)]


def _curve(
    subject: Subject,
    plan: PoisonAttack,
    arch: str,
    recipe: Recipe,
    counts: tuple[int, ...],
    trainings: int,
    out: Path | str | None,
) -> tuple[dict[str, Any], list[Record]]:
    """Train with each count and seed; what is finished is kept in the folder."""
    from purpleteam.attacks.poison.curve import poison_curve

    data = subject.dataset
    folder = folder_to_write(out or Path("data") / f"{data.name}-{plan.name}-curve")
    points = poison_curve(
        plan,
        data,
        counts=counts,
        seeds=range(subject.seed, subject.seed + trainings),
        architecture=arch,
        recipe=recipe,
        journal=folder / "trainings",
        device=subject.device,
        progress=subject.progress,
    )
    facts = plan.describe(data.shape[2])
    facts = {key: facts[key] for key in facts if key not in ("poisoned", "asked_rate")}
    values = {"dataset": data.name, "file": str(folder / "curve.json")} | facts
    values |= points.to_json() | {"architecture": arch, "recipe": asdict(recipe)}
    values |= {"data": subject.data()}
    write_answer(folder / "curve.json", values)
    about = replace(subject, model=None).about(training_set=data.train.digest)
    records: list[Record] = [
        Measurement(
            name=f"{name}_mean",
            value=getattr(point, name),
            subject=about,
            how=facts | {"poisoned": point.count, "seeds": list(points.seeds)},
        )
        for point in points.points
        for name in ("attack_success_rate", "clean_accuracy")
    ]
    return values, records


def backdoor_records(
    subject: Subject, clean: LoadedModel, plan: PoisonAttack, made: PoisonedSet, lab: bool = False
) -> list[Record]:
    """Measure what a trigger does to the subject's model, beside a clean one of the same recipe."""
    from purpleteam.attacks.poison.evaluate import evaluate_backdoor
    from purpleteam.core.statistics import paired_difference

    test, model, seed = subject.dataset.test, subject.loaded.module, subject.seed
    backdoor = evaluate_backdoor(model, test, plan, clean_model=clean.module)
    about = subject.about(clean_model=clean.digest)
    facts = plan.describe(subject.dataset.shape[2]) | {"poison_rate": made.rate}
    learned = {"training_set": made.images.digest}
    if lab:
        return [*backdoor.measurements(about | learned, facts | {"lab": True}, seed)]
    without = evaluate_backdoor(clean.module, test, plan)
    difference = Measurement(
        name="clean_accuracy_difference",
        value=paired_difference(without.clean_correct.tolist(), backdoor.clean_correct.tolist()),
        subject=about,
        how=facts | learned,
        seed=seed,
    )
    return [*backdoor.measurements(about, facts | learned, seed), difference]
