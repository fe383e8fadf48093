"""What the verbs that work on one model share: dataset, device, model, and what to say of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from purpleteam.cli.screen import table
from purpleteam.core.cards import StoredModel
from purpleteam.core.config import build as build_part
from purpleteam.core.config import parse_part
from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import UsageError
from purpleteam.core.factory import is_factory
from purpleteam.core.registry import Registry
from purpleteam.data.images import SPLITS, Dataset
from purpleteam.models.architectures import Shape
from purpleteam.models.black_box import BlackBox
from purpleteam.models.devices import choose_device, use_threads
from purpleteam.models.inference import correct, logits
from purpleteam.models.loading import LoadedModel, build
from purpleteam.models.recipes import Recipe
from purpleteam.models.store import Provenance, store
from purpleteam.models.training import Training
from purpleteam.pipeline.importing import load_for, open_dataset
from purpleteam.pipeline.work import subject_of

__all__ = [
    "Asked",
    "Lab",
    "checkpoint_of",
    "code_of",
    "recipe_from",
    "seconds_of",
    "trained_answer",
]

R = TypeVar("R", bound=Recipe)


@dataclass(frozen=True)
class Asked:
    """What is said of `--model` beside it, as it was typed."""

    weights: Path | None = None
    arch: str | None = None
    normalise: str | None = None
    classes: str | None = None


@dataclass(frozen=True)
class Lab:
    """A dataset and where to work on it."""

    dataset: Dataset
    device: torch.device
    model: Asked

    @classmethod
    def open(
        cls,
        dataset: str,
        *,
        device: str,
        threads: int | None,
        model: Asked | None = None,
        training: bool = False,
    ) -> Lab:
        """Load the dataset and choose device and threads; `training` needs training images."""
        use_threads(threads or 1)
        lab = cls(open_dataset(dataset), choose_device(device), model or Asked())
        if training:
            lab.dataset.check_trainable()
        return lab

    @property
    def shape(self) -> Shape:
        """Channels, height and width of the images."""
        height, width, channels = self.dataset.shape
        return channels, height, width

    def load(self, model: str) -> LoadedModel:
        """Return the model that `--model` means, when it fits the dataset; see its `notes`."""
        return load_for(self.dataset, model, device=self.device, **vars(self.model))

    def net(self, arch: str, seed: int, like: LoadedModel | None = None) -> nn.Module:
        """Return a net for the dataset with seeded random weights.

        Code of the user's own wants the same input as the model that it is like.
        """
        net = build(arch, self.shape, len(self.dataset.classes), seed=seed)
        return net if like is None or not is_factory(arch) else like.behind(net)

    def subject(self, model: LoadedModel, split: str, limit: int | None) -> dict[str, Any]:
        """Return what a number about the model on this dataset is about."""
        return subject_of(model, self.dataset, model.name, split=split, limit=limit)

    def answers(self, model: LoadedModel) -> str:
        """Return a digest of how the model answers: a factory's code may change, not its weights.

        A model that only answers is not asked for it: each question may cost.
        """
        if isinstance(model.module, BlackBox):
            return model.digest
        scores = logits(model.module, self.dataset.validation.images[:8])
        return sha256_bytes(scores.tobytes())

    def used(self, split: str | None, model: LoadedModel) -> str:
        """Return the split that measures a model: the asked one, else what it has not learned.

        A set without splits is used whole, unless the model was trained on the part of it that
        was dealt to training.
        """
        learned = None if model.card is None else model.card.data_digest
        if split is None and learned == self.dataset.train.digest:
            return "test"
        return split or self.dataset.tested

    def data(self, used: str | None = None) -> dict[str, Any]:
        """Return what there is of images, by split, and what of them is used, for --json."""
        sizes = {name: len(self.dataset.split(name)) for name in SPLITS}
        facts = {"name": self.dataset.name, "classes": len(self.dataset.classes), "images": sizes}
        facts |= {"dealt": self.dataset.whole is not None, "used": used}
        return {"data": facts | {"summary": self.dataset.summary(used)}}

    def flags(
        self,
        split: str | None = None,
        limit: int | None = None,
        model: LoadedModel | None = None,
    ) -> list[str]:
        """Return what there is of images, and the notes on them, on a model and on a limit."""
        notes = [self.dataset.summary(split), *self.notes, *([] if model is None else model.notes)]
        notes += [] if split is None else self.of_part(split, limit)
        return ["", *(f"note: {one}" for one in notes)]

    def of_part(self, split: str, limit: int | None) -> list[str]:
        """Return what to say where only the first images of a split were looked at."""
        images = self.dataset.split(split)
        if limit is None or limit >= len(images):
            return []
        absent = len(set(images.labels.tolist()) - set(images.labels[:limit].tolist()))
        without = f", with none of {absent} of the classes" if absent else ""
        return [f"the first {limit} of {len(images)} images are no random sample{without}"]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was changed while the dataset was read, each a line for the user."""
        return tuple(self.dataset.origin.get("notes", ()))

    def store(
        self,
        training: Training,
        stem: Path,
        arch: str,
        name: Mapping[str, Any],
        recipe: Recipe,
        seed: int,
        *,
        data_digest: str | None = None,
        parent: str | None = None,
    ) -> StoredModel:
        """Store a trained net with all that its card says."""
        right = correct(training.module, self.dataset.validation)
        provenance = Provenance(
            architecture=arch,
            shape=self.shape,
            classes=self.dataset.classes,
            recipe={**name, **asdict(recipe), "seed": seed},
            data_digest=data_digest or self.dataset.train.digest,
            parent=parent,
            validation_accuracy=float(right.mean()),
        )
        stored = store(training.module, stem, provenance)
        checkpoint_of(stem).unlink(missing_ok=True)
        return stored


def checkpoint_of(stem: Path) -> Path:
    """Return the file from which a stopped training goes on when the command is typed again."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    return stem.with_name(f".{stem.name}.checkpoint.safetensors")


def code_of(arch: str, model: str | None) -> str | None:
    """Return the code of a stored `--model`, where `--arch` names code to train and that has none.

    The verbs that train have one option for both.
    """
    stored = model is not None and not is_factory(model) and "://" not in model
    return arch if stored and is_factory(arch) and not str(model).endswith(".onnx") else None


def recipe_from(
    recipes: Registry[type[R]], text: str, epochs: int | None, **fields: object
) -> tuple[str, R]:
    """Return the name and recipe that `NAME[:field=value,...]` and the options beside it mean."""
    name, values = parse_part(text)
    asked = {"epochs": epochs} | fields
    values |= {key: value for key, value in asked.items() if value is not None}
    return name, build_part(recipes[name], values, f"recipe {name}")


def seconds_of(minutes: float | None) -> float | None:
    """Return a budget in seconds; nothing and less than nothing are refused."""
    if minutes is None:
        return None
    if not 0 < minutes < float("inf"):
        raise UsageError(f"--budget {minutes:g} is no number of minutes above 0")
    return minutes * 60


def trained_answer(stored: StoredModel, training: Training) -> tuple[dict[str, Any], list[str]]:
    """Return what train and harden answer, as JSON fields and as lines."""
    values = {
        "model": str(stored.weights),
        "digest": stored.card.digest,
        "validation_accuracy": stored.card.validation_accuracy,
        "seconds": round(training.seconds, 2),
        "epochs": len(training.epochs),
        "best_epoch": training.best.epoch,
    }
    return values, table(list(values.items()))
