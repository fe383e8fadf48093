"""A net that is trained and stored: what `train`, `harden` and `poison --train` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from purpleteam.core.errors import UsageError
from purpleteam.core.records import Measurement, Note, Record
from purpleteam.core.schema import TRAINING, Role, model_note
from purpleteam.verbs.result import Result, table

if TYPE_CHECKING:
    from torch import nn

    from purpleteam.core.cards import StoredModel
    from purpleteam.core.registry import Registry
    from purpleteam.core.runfolder import RunFolder
    from purpleteam.data.images import Dataset
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
    data: Mapping[str, Any]

    @property
    def model(self) -> Path:
        """The file of weights; `--model` takes it."""
        return self.stored.weights

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `purple train --json` and `purple harden --json`."""
        return {
            "model": str(self.stored.weights),
            "digest": self.stored.card.digest,
            "validation_accuracy": self.stored.card.validation_accuracy,
            "seconds": round(self.training.seconds, 2),
            "epochs": len(self.training.epochs),
            "best_epoch": self.training.best.epoch,
            "data": dict(self.data),
        }

    def lines(self) -> list[str]:
        """Return where the model is and how good."""
        return table([(key, value) for key, value in self.to_json().items() if key != "data"])


@dataclass(frozen=True, kw_only=True, repr=False)
class Hardened(Trained):
    """A model that was trained by a defence."""

    stage = "defences"


def train_and_store(
    subject: Subject,
    stem: Path,
    arch: str,
    recipe: Mapping[str, Any],
    fit: Callable[[nn.Module, Path], Training],
    *,
    seed: int,
    role: Role,
    lab: bool = False,
    name: str | None = None,
    data_digest: str | None = None,
    parent: str | None = None,
    run: RunFolder | None = None,
) -> tuple[StoredModel, Training, list[Record]]:
    """Train a new net, store it with its card, and return the records of it.

    Args:
        subject: the dataset, whose validation images measure the net.
        stem: where the model's files go; a stopped training goes on from a file beside.
        arch: what the net is built by.
        recipe: what card and records say of the training, its name included.
        fit: trains a net and keeps a checkpoint in the file.
        seed: of weights, order and everything else that is random.
        role: the part that the model plays.
        lab: it is one of the poison lab's.
        name: of the model in records; by default that of its files.
        data_digest: of the images that were learned, where not the training split.
        parent: digest of the model that it came from.
        run: the run folder, where the files lie in one.
    """
    from purpleteam.models.inference import correct
    from purpleteam.models.store import Provenance, store

    dataset = subject.dataset
    stem.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = stem.with_name(f".{stem.name}.checkpoint.safetensors")
    training = fit(subject.net(arch, seed), checkpoint)
    right = correct(training.module, dataset.validation)
    provenance = Provenance(
        architecture=arch,
        shape=subject.shape,
        classes=dataset.classes,
        recipe={**recipe, "seed": seed},
        data_digest=data_digest or dataset.train.digest,
        parent=parent,
        validation_accuracy=float(right.mean()),
    )
    stored = store(training.module, stem, provenance)
    checkpoint.unlink(missing_ok=True)
    digest, called = stored.card.digest, name or stem.name
    measured = _accuracy(dataset, digest, called, right, {"recipe": dict(recipe)}, seed)
    measured = replace(measured, cost={"seconds": training.seconds})
    epochs = [
        {"epoch": one.epoch, "loss": one.loss, "validation_accuracy": one.validation_accuracy}
        for one in training.epochs
    ]
    facts = {
        "model_name": called,
        "model": digest,
        "seed": seed,
        "recipe": dict(recipe),
        "best_epoch": training.best.epoch,
        "epochs": epochs,
    }
    part = model_note(digest, called, role, lab=lab)
    files = kept_files(run, stem, measured.id)
    records = [part, measured, Note(name=TRAINING, facts=facts), *files]
    return stored, training, records


def kept_files(run: RunFolder | None, stem: Path, made_by: str) -> list[Record]:
    """Return the records of a stored model's files, where they lie in a run."""
    if run is None or not stem.resolve().is_relative_to(run.path.resolve()):
        return []
    ends = (".safetensors", ".onnx", ".json")
    return [run.artefact(stem.with_name(stem.name + end), made_by) for end in ends]


def validation_subject(dataset: Dataset, digest: str, name: str) -> dict[str, Any]:
    """Return what a number about a trained model on the validation images is about."""
    return {
        "model": digest,
        "model_name": name,
        "dataset": dataset.validation.digest,
        "dataset_name": dataset.name,
        "split": "validation",
        "selection": "all",
    }


def _accuracy(
    dataset: Dataset, digest: str, name: str, right: Any, how: Mapping[str, Any], seed: int
) -> Measurement:
    from purpleteam.core.statistics import Rate

    return Measurement(
        name="validation_accuracy",
        value=Rate.of(int(right.sum()), len(right)),
        subject=validation_subject(dataset, digest, name),
        how=how,
        seed=seed,
    )


def part(registry: Registry[type[P]], text: Any, where: str, **given: object) -> P:
    """Return the part that `NAME[:field=value,...]` means; what is given beside goes before.

    A part that is one already is returned as it is.

    Raises:
        UsageError: there is no such part.
        ConfigError: a field is not known or out of its range; the line begins with `where`.
    """
    from purpleteam.core.config import build, parse_part

    if not isinstance(text, str):
        return text  # type: ignore[no-any-return]
    name, values = parse_part(text)
    values |= {key: value for key, value in given.items() if value is not None}
    return build(registry[name], values, f"{where} {name}")


def recipe_from(
    registry: Registry[type[P]], text: Any, epochs: int | None, **given: object
) -> tuple[str, P]:
    """Return the name and the recipe that `NAME[:field=value,...]` and options beside it mean."""
    recipe = part(registry, text, "recipe", epochs=epochs, **given)
    if isinstance(text, str):
        return text.partition(":")[0].strip(), recipe
    return next(name for name, kind in registry.items() if type(recipe) is kind), recipe


def described(name: str, recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as card and records have it."""
    return {"name": name, **asdict(recipe)}


def seconds_of(minutes: float | None) -> float | None:
    """Return a budget in seconds; nothing and less than nothing are refused."""
    if minutes is None:
        return None
    if not 0 < minutes < float("inf"):
        raise UsageError(f"--budget {minutes:g} is no number of minutes above 0")
    return minutes * 60
