"""A net that is trained and stored: what `train`, `harden` and `poison --train` share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from purpleteam.core.config import build, parse_part
from purpleteam.core.errors import UsageError
from purpleteam.core.records import Measurement, Note, Record
from purpleteam.core.schema import TRAINING, Role, model_note
from purpleteam.verbs.result import Result

if TYPE_CHECKING:
    from torch import nn

    from purpleteam.core.cards import StoredModel
    from purpleteam.core.registry import Registry
    from purpleteam.data.images import ImageSet
    from purpleteam.models.recipes import Recipe
    from purpleteam.models.training import Training
    from purpleteam.verbs._subject import Subject

P = TypeVar("P")


@dataclass(frozen=True, kw_only=True, repr=False)
class Trained(Result):
    """A stored model, and how its training went."""

    stage = "models"

    stored: StoredModel
    training: Training

    def lines(self) -> list[str]:
        """Return the answer as lines; of what privacy has cost, one."""
        values = dict(self.values)
        if spent := values.get("privacy"):
            values["privacy"] = (
                f"epsilon {spent['epsilon']:.2f} at delta {spent['delta']:g} is spent, says "
                f"{spent['accountant']} of Opacus {spent['opacus']}"
            )
        return Result(values=values).lines()


@dataclass(frozen=True, kw_only=True, repr=False)
class Hardened(Trained):
    """A model that was trained by a defence."""

    stage = "defences"


def train_and_store(
    subject: Subject,
    stem: Path,
    arch: str,
    recipe: Recipe,
    role: Role,
    *,
    images: ImageSet | None = None,
    name: str | None = None,
    lab: bool = False,
    seconds: float | None = None,
    **more: Any,
) -> Trained:
    """Train a new net by a recipe or a defence, store it with its card, and make its records.

    The subject's model is the baseline of a defence. A stopped training goes on from a file beside
    `stem`. `images` are learned where not the training split; `more` is what card and records say
    beside of the recipe, such as the poison.
    """
    learned = subject.dataset.train if images is None else images
    stem.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = stem.with_name(f".{stem.name}.checkpoint.safetensors")
    title = f"{'harden' if role == 'hardened' else 'train'} {name or stem.name}"
    training = fit(subject, subject.net(arch), recipe, learned, title, checkpoint, seconds)
    how = {"name": recipe.name, **asdict(recipe), **training.facts, **more}
    stored, records = store_measured(
        subject,
        training.module,
        stem,
        arch,
        role,
        learned,
        how={"recipe": how},
        recipe=how,
        cost={"seconds": training.seconds},
        parent=subject.loaded.digest if getattr(recipe, "needs_baseline", False) else None,
        name=name,
        lab=lab,
    )
    done, notes = len(training.epochs), subject.notes
    if seconds is not None and done < recipe.epochs:
        notes = (*notes, f"--budget: {done} of {recipe.epochs} epochs; typed again, it goes on")
    else:
        checkpoint.unlink(missing_ok=True)
    facts = {
        "model_name": name or stem.name,
        "model": stored.card.digest,
        "seed": subject.seed,
        "recipe": how,
        "best_epoch": training.best.epoch,
        "epochs": [asdict(epoch) for epoch in training.epochs],
    }
    records.insert(2, Note(name=TRAINING, facts=facts))
    values = {
        "model": str(stored.weights),
        "digest": stored.card.digest,
        "validation_accuracy": stored.card.validation_accuracy,
        "seconds": round(training.seconds, 2),
        "epochs": len(training.epochs),
        "best_epoch": training.best.epoch,
        **training.facts,
        "data": subject.data(),
    }
    return (Hardened if role == "hardened" else Trained)(
        stored=stored, training=training, values=values, records=tuple(records), notes=notes
    )


def fit(
    subject: Subject,
    net: nn.Module,
    recipe: Recipe,
    images: ImageSet,
    description: str,
    checkpoint: Path | None = None,
    seconds: float | None = None,
) -> Training:
    """Train a net by a recipe, or by a defence, which learns the dataset's training split."""
    from purpleteam.defences import Defence, Hardening

    work = Hardening(
        net=net,
        dataset=subject.dataset,
        baseline=None if subject.model is None else subject.model.module,
        seed=subject.seed,
        checkpoint=checkpoint,
        device=subject.device,
        description=description,
        progress=subject.progress,
        budget_seconds=seconds,
    )
    if isinstance(recipe, Defence):
        return recipe.harden(work)
    return work.train(recipe, images, subject.dataset.validation)


def store_measured(
    subject: Subject,
    module: nn.Module,
    stem: Path,
    arch: str,
    role: Role,
    learned: ImageSet,
    *,
    how: Mapping[str, Any],
    recipe: Mapping[str, Any],
    cost: Mapping[str, float],
    parent: str | None,
    name: str | None,
    lab: bool,
) -> tuple[StoredModel, list[Record]]:
    """Store a net with its card; return the records of its part, its accuracy and its files."""
    from purpleteam.core.statistics import Rate
    from purpleteam.models.inference import correct
    from purpleteam.models.store import Provenance, store

    right = correct(module, subject.dataset.validation)
    provenance = Provenance(
        architecture=arch,
        shape=subject.shape,
        classes=subject.dataset.classes,
        recipe={**recipe, "seed": subject.seed},
        data_digest=learned.digest,
        parent=parent,
        validation_accuracy=float(right.mean()),
    )
    stored = store(module, stem, provenance)
    digest, called = stored.card.digest, name or stem.name
    images = replace(subject, model=None, split="validation", limit=None)
    measured = Measurement(
        name="validation_accuracy",
        value=Rate.of(int(right.sum()), len(right)),
        subject=images.about(model=digest, model_name=called),
        how=how,
        seed=subject.seed,
        cost=cost,
    )
    records: list[Record] = [model_note(digest, called, role, lab=lab), measured]
    if (run := subject.run) and stem.resolve().is_relative_to(run.path.resolve()):
        files = (stem.with_name(stem.name + end) for end in (".safetensors", ".onnx", ".json"))
        records += [run.artefact(file, measured.id) for file in files]
    return stored, records


def part(registry: Registry[type[P]], text: Any, where: str, **given: object) -> P:
    """Return the part that `NAME[:field=value,...]` means; what is given beside goes before."""
    if not isinstance(text, str):
        return text  # type: ignore[no-any-return]
    name, values = parse_part(text)
    values |= {key: value for key, value in given.items() if value is not None}
    return build(registry[name], values, f"{where} {name}")


def check_arch(arch: str | None) -> None:
    """Refuse the name of no architecture; code of the user's is not called yet."""
    from purpleteam.core.factory import is_factory
    from purpleteam.models.architectures import ARCHITECTURES

    if arch is not None and not is_factory(arch):
        _ = ARCHITECTURES[arch]


def seconds_of(minutes: float | None) -> float | None:
    """Return a budget in seconds; nothing and less than nothing are refused."""
    if minutes is not None and not 0 < minutes < float("inf"):
        raise UsageError(f"--budget {minutes:g} is no number of minutes above 0")
    return None if minutes is None else minutes * 60
