"""poison: a few changed training images, and what they buy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from purpleteam.core.errors import UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.records import Measurement, Record
from purpleteam.core.runfolder import RunFolder
from purpleteam.verbs.options import (
    Arch,
    Classes,
    Device,
    Epochs,
    Images,
    ModelOrNone,
    Normalise,
    Out,
    Seed,
    Threads,
    Weights,
)
from purpleteam.verbs.result import Result, percent, table
from purpleteam.verbs.trained import described, recipe_from, train_and_store
from purpleteam.verbs.verb import Option, verb

if TYPE_CHECKING:
    from torch import nn

    from purpleteam.attacks.poison import PoisonAttack, PoisonedSet
    from purpleteam.data.images import ImageSet
    from purpleteam.models.loading import LoadedModel
    from purpleteam.models.recipes import Recipe
    from purpleteam.models.training import Training
    from purpleteam.verbs._subject import Subject


@dataclass(frozen=True, kw_only=True, repr=False)
class Poisoned(Result):
    """A poisoned training set and, where it was learned, what its trigger does."""

    stage = "attacks"

    values: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `purple poison --json`."""
        return dict(self.values)

    def lines(self) -> list[str]:
        """Return what was poisoned, and success beside accuracy."""
        values = self.values
        if "curve" in values:
            return _curve_lines(values)
        shown: list[tuple[str, Any]] = [
            (key, values[key]) for key in ("dataset", "poison", "poisoned", "cover", "target_label")
        ]
        rates: tuple[str, ...] = ("clean_accuracy",)
        if values["shows"] == "trigger":
            rates += ("attack_success_rate", "base_rate", "triggered_accuracy")
        shown += [(key.replace("_", " "), percent(values[key])) for key in rates if key in values]
        if "victim" in values:
            one = values["victim"]
            text = f"image {one['index']}, a {one['label']} read as {one['read_as']}"
            shown.append(("victim", text))
        lines = table(shown)
        if "per_source" in values and values["shows"] == "trigger":
            lines += ["attack success rate by true class:"]
            sources = values["per_source"].items()
            lines += table([(f"  {label}", percent(rate)) for label, rate in sources])
        return lines


@verb()
def poison(
    images: Images = "digits",
    labels: Any = None,
    *,
    attack: Annotated[
        Any,
        Option(
            help="badnets, blended, sig, wanet, tact, adaptive_blend, adaptive_patch, "
            "clean_label, witches_brew, label_flip, with [:field=value,...], also of the "
            "trigger: badnets:trigger.size=4."
        ),
    ] = "badnets",
    count: Annotated[int | None, Option(kind=int, least=1, help="Images poisoned.")] = None,
    rate: Annotated[
        float | None, Option(kind=float, help="The same as a share of the training images.")
    ] = None,
    target_label: Annotated[
        int | None, Option(kind=int, least=0, help="Label the adversary wants.")
    ] = None,
    sources: Annotated[
        Any, Option(help="Poisoned classes: other, target, any, or labels: 1,3.")
    ] = None,
    cover: Annotated[
        int | None,
        Option(kind=int, least=0, help="Images with the trigger that keep their label."),
    ] = None,
    train: Annotated[bool, Option(kind=bool, help="Train on it and measure the backdoor.")] = False,
    curve: Annotated[
        Any, Option(help="Train with each of these counts instead: 10,20,50,100.")
    ] = None,
    trainings: Annotated[
        int,
        Option(kind=int, least=2, name="--trainings", help="Trainings for each count of --curve."),
    ] = 5,
    model: ModelOrNone = None,
    weights: Weights = None,
    normalise: Normalise = None,
    classes: Classes = None,
    arch: Arch = "classic_cnn",
    recipe: Annotated[Any, Option(help="Training recipe.")] = "plain",
    epochs: Epochs = None,
    out: Out = None,
    seed: Seed = 0,
    threads: Threads = None,
    device: Device = "auto",
    run: RunFolder | None = None,
    progress: Progress = SILENT,
) -> Poisoned:
    """Change a few training images; with --train or --curve, say what that buys.

    Args:
        model: a clean model for the base rate; one is trained where it is absent.
    """
    from purpleteam.attacks.poison.asked import poison_from
    from purpleteam.models.recipes import RECIPES
    from purpleteam.verbs._subject import ModelOptions, code_of, open_subject

    called, plan = recipe_from(RECIPES, recipe, epochs)
    asked = {
        "count": count,
        "rate": rate,
        "target_label": target_label,
        "sources": _sources(sources),
        "cover": cover,
    }
    counts = None if curve is None else _whole(curve, "--curve")
    if isinstance(attack, str):
        poison_from(attack, asked, dataset=None)  # said before anything is read
    subject = open_subject(
        images,
        labels,
        model=model if train else None,
        options=ModelOptions(
            weights=weights, arch=code_of(arch, model), normalise=normalise, classes=classes
        ),
        device=device,
        threads=threads,
        training=True,
        progress=progress,
    )
    dataset = subject.dataset
    chosen = poison_from(attack, asked, dataset=dataset) if isinstance(attack, str) else attack
    tested = dataset.test if train or counts else None
    several = [replace(chosen, count=n, rate=None) for n in counts or () if n]
    for one in several if counts is not None else [chosen]:
        one.check(dataset.train, seed=seed, test=tested)
    if train or counts:
        subject.net(arch, seed)  # what cannot be built is refused before anything is written
    work = _Poisoning(subject, chosen, arch, called, plan, seed, run, progress)
    if counts is not None:
        values, records = work.curve(counts, trainings, out)
    else:
        values, records = work.set_and_model(out, train)
    return Poisoned(
        values=values | {"data": subject.data()}, records=tuple(records), notes=subject.notes
    )


@dataclass(frozen=True)
class _Poisoning:
    """A poison for a dataset, and how what is trained on it is trained."""

    subject: Subject
    plan: PoisonAttack
    arch: str
    name: str
    recipe: Recipe
    seed: int
    run: RunFolder | None
    progress: Progress

    def set_and_model(self, out: Any, train: bool) -> tuple[dict[str, Any], list[Record]]:
        """Write the poisoned dataset; where asked, train on it and measure."""
        from purpleteam.data.folders import save_dataset
        from purpleteam.verbs.outputs import folder_to_write

        data, plan = self.subject.dataset, self.plan
        made = plan.apply(
            data.train, seed=self.seed, validation=data.validation, progress=self.progress
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
            "trigger": plan.trigger.describe(data.shape[2]),
        }
        if not train:
            return values, []
        measured, records = self._measured(made, folder / "model")
        return values | measured, records

    def curve(
        self, counts: Sequence[int], trainings: int, out: Any
    ) -> tuple[dict[str, Any], list[Record]]:
        """Train with each count and seed; what is finished is kept in the folder."""
        from purpleteam.attacks.poison.curve import poison_curve
        from purpleteam.verbs.outputs import folder_to_write, write_answer

        data = self.subject.dataset
        folder = folder_to_write(out or Path("data") / f"{data.name}-{self.plan.name}-curve")
        points = poison_curve(
            self.plan,
            data,
            counts=counts,
            seeds=range(self.seed, self.seed + trainings),
            architecture=self.arch,
            recipe=self.recipe,
            journal=folder / "trainings",
            device=self.subject.device,
            progress=self.progress,
        )
        described_as = self.plan.describe(data.shape[2])
        facts = {k: v for k, v in described_as.items() if k not in ("poisoned", "asked_rate")}
        values = {"dataset": data.name, "file": str(folder / "curve.json")} | facts
        values |= points.to_json() | {"architecture": self.arch, "recipe": asdict(self.recipe)}
        values |= {"data": self.subject.data()}
        write_answer(folder / "curve.json", values)
        about = {
            "dataset": data.test.digest,
            "dataset_name": data.name,
            "training_set": data.train.digest,
            "split": "test",
            "selection": "all",
        }
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

    def _measured(self, made: PoisonedSet, stem: Path) -> tuple[dict[str, Any], list[Record]]:
        """Train, store the poisoned model, and measure what the trigger does to it."""
        from purpleteam.attacks.poison.evaluate import evaluate_backdoor, evaluate_victim
        from purpleteam.models.loading import LoadedModel

        data, plan = self.subject.dataset, self.plan
        recipe = described(self.name, self.recipe) | {"poison": plan.describe(data.shape[2])}
        stored, training, records = train_and_store(
            self.subject,
            stem,
            self.arch,
            recipe,
            lambda net, _: self._fit(net, made.images, "train on the poisoned set"),
            seed=self.seed,
            role="poisoned",
            data_digest=made.images.digest,
            run=self.run,
        )
        clean, whose = self._clean()
        backdoor = evaluate_backdoor(training.module, data.test, plan, clean_model=clean.module)
        values = backdoor.to_json()
        if plan.shown == "victim":
            nets: dict[str, nn.Module] = {
                "victim": training.module,
                "victim_of_clean_model": clean.module,
            }
            values |= {
                key: evaluate_victim(net, data.validation, made.manifest).to_json()
                for key, net in nets.items()
            }
        loaded = LoadedModel(stored.card.name, stored.card.digest, training.module, stored.card)
        records += backdoor_records(self.subject, loaded, clean, plan, made, self.seed)
        how = {"clean_model": whose, "recipe": asdict(self.recipe)}
        return {"model": str(stored.weights)} | values | how, records

    def _clean(self) -> tuple[LoadedModel, str]:
        """Return a clean model: the given one, or one of the same recipe and seed."""
        from purpleteam.models.loading import LoadedModel
        from purpleteam.models.weights import digest_of

        if self.subject.model is not None:
            return self.subject.model, self.subject.model.name
        train = self.subject.dataset.train
        net = self._fit(self.subject.net(self.arch, self.seed), train, "train the clean model")
        whose = "trained: same recipe and seed on the clean set"
        return LoadedModel("clean", digest_of(net.module), net.module), whose

    def _fit(self, net: nn.Module, images: ImageSet, description: str) -> Training:
        from purpleteam.models.training import train

        return train(
            net,
            images,
            self.subject.dataset.validation,
            self.recipe,
            seed=self.seed,
            device=self.subject.device,
            description=description,
            progress=self.progress,
        )


def backdoor_records(
    subject: Subject,
    model: LoadedModel,
    clean: LoadedModel,
    plan: PoisonAttack,
    made: PoisonedSet,
    seed: int,
) -> list[Record]:
    """Measure what a trigger does to a poisoned model, beside a clean one of the same recipe."""
    from purpleteam.attacks.poison.evaluate import evaluate_backdoor
    from purpleteam.core.statistics import paired_difference

    test = subject.dataset.test
    backdoor = evaluate_backdoor(model.module, test, plan, clean_model=clean.module)
    without = evaluate_backdoor(clean.module, test, plan)
    about = subject.about(model, clean_model=clean.digest)
    facts = plan.describe(subject.dataset.shape[2])
    facts |= {"poison_rate": made.rate, "training_set": made.images.digest}
    difference = Measurement(
        name="clean_accuracy_difference",
        value=paired_difference(without.clean_correct.tolist(), backdoor.clean_correct.tolist()),
        subject=about,
        how=facts,
        seed=seed,
    )
    return [*backdoor.measurements(about, facts, seed), difference]


def _sources(given: Any) -> Any:
    """Return what --sources means: a word, or labels."""
    if not isinstance(given, str) or not any(c.isdigit() for c in given):
        return given
    return _whole(given, "--sources")


def _whole(given: Any, option: str) -> tuple[int, ...]:
    """Return the whole numbers of a list with commas."""
    if not isinstance(given, str):
        return tuple(given)
    parts = [text.strip() for text in given.split(",")]
    if not all(text.isascii() and text.isdigit() and len(text) < 10 for text in parts):
        raise UsageError(f"{option} {given!r} is no list of whole numbers such as 10,20,50")
    return tuple(int(text) for text in parts)


def _curve_lines(values: Mapping[str, Any]) -> list[str]:
    rows = [("poisons", "attack success rate", "clean accuracy")]
    rows += [
        (str(p["count"]), percent(p["attack_success_rate"]), percent(p["clean_accuracy"]))
        for p in values["curve"]
    ]
    facts = [("dataset", values["dataset"]), ("poison", values["poison"]), ("file", values["file"])]
    n = len(values["seeds"])
    return [*table(facts), f"mean over {n} trainings with its 95 % t interval:", *table(rows)]
