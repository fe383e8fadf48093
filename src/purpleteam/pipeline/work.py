"""What every stage works with: the run folder, the dataset, models by name, cells and pieces.

A stage calls `cell` for each piece of work; what is finished is never done again. It may yield
`Piece`s that do not need each other: one that fails is recorded and the others are done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from purpleteam.attacks.poison.asked import aimed_at
from purpleteam.core.cards import find_stored
from purpleteam.core.errors import ModelError
from purpleteam.core.factory import is_factory
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.records import Measurement, Note, Record
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.schema import NOT_TESTED, TRAINING, Role, model_note
from purpleteam.core.statistics import Rate
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.models.architectures import Shape
from purpleteam.models.inference import correct, logits
from purpleteam.models.loading import BY_NAME, LoadedModel, build, load
from purpleteam.models.normalisation import Normalisation
from purpleteam.models.store import Provenance, store
from purpleteam.models.training import Training
from purpleteam.pipeline.config import RunConfig

__all__ = ["Piece", "Stage", "Work", "check_answers", "subject_of"]


@dataclass(frozen=True)
class Piece:
    """Work that the other pieces of its stage do not need; it may be pieces itself.

    What it needs of other stages it asks for by their functions (`baseline`): a cell that failed
    is not tried again, and fails whatever asks for it.
    """

    what: str
    """What it is called where it fails; unique in its stage."""
    do: Callable[[], object]
    """Does the work; a generator yields pieces of it."""


Stage = Callable[["Work"], "Iterator[Piece] | None"]
"""One stage of a run, or a part of one."""


@dataclass
class Work:
    """The state of one run as it goes from stage to stage."""

    run: RunFolder
    config: RunConfig
    dataset: Dataset
    device: torch.device
    threads: int
    progress: Progress = SILENT
    command: tuple[str, ...] = ()
    """The command line that was typed, kept with each record."""
    models: dict[str, LoadedModel] = field(default_factory=dict)
    processes: int = 1
    """How many work for the run; more than one leave it drafts of cells."""

    @property
    def shape(self) -> Shape:
        """Channels, height and width of the images."""
        height, width, channels = self.dataset.shape
        return channels, height, width

    @property
    def target_label(self) -> int:
        """The label that poison attacks aim at: the asked one, or one that they can aim at."""
        return aimed_at(self.config.poison.target_label, self.dataset)

    @property
    def train(self) -> ImageSet:
        """The training images, for whoever learns from them.

        Raises:
            DataError: there is nothing to learn from.
        """
        self.dataset.check_trainable()
        return self.dataset.train

    @property
    def architecture(self) -> str:
        """Of the models that are trained: what is asked for, or the brought model's own."""
        brought = self.config.models.use
        if self.config.architecture or brought is None:
            return self.config.architecture or "classic_cnn"
        if is_factory(brought):
            return brought
        named = find_stored(brought).card.architecture
        return self.config.models.arch or named if is_factory(named) else named

    def net(self, architecture: str, *, seed: int) -> nn.Module:
        """Return a net for the dataset with seeded random weights.

        Code of the user's own wants the same input as the model that was brought.
        """
        net = build(architecture, self.shape, len(self.dataset.classes), seed=seed)
        layer = self._layer if is_factory(architecture) else None
        return net if layer is None else layer.before(net)

    @property
    def _layer(self) -> Normalisation | None:
        """What the brought model wants of images."""
        asked = self.config.models
        if asked.normalise is not None:
            return Normalisation.parse(asked.normalise)
        if asked.use is None or is_factory(asked.use):
            return None
        card = find_stored(asked.use).card
        return Normalisation.of_card(card.normalisation, f"card {card.name!r}")

    def cell(
        self,
        stage: str,
        what: str,
        depends_on: Mapping[str, Any],
        work: Callable[[], Sequence[Record]],
    ) -> list[Record]:
        """Do one piece of work once, named by all that its result depends on."""
        keys = {"what": what, "data": self.dataset.digest, "threads": self.threads, **depends_on}
        return self.run.cell(
            stage, keys, lambda: [replace(one, command=self.command) for one in work()]
        )

    def left_out(self, stage: str, what: str, why: str) -> None:
        """Record what cannot be asked of these images: the report lists it as not tested."""
        facts = {"items": [{"what": what, "why": why}]}
        self.cell(stage, f"leave out {what}", facts, lambda: [Note(name=NOT_TESTED, facts=facts)])

    def subject(
        self, model: LoadedModel, name: str, *, split: str = "test", limit: int | None = None
    ) -> dict[str, Any]:
        """Return what a number about `model` on a split is about, digests included."""
        return subject_of(model, self.dataset, name, split=split, limit=limit)

    def plays(self, stage: str, model: LoadedModel, name: str, role: Role) -> None:
        """Record what part a model plays that was not trained here."""
        note = model_note(model.digest, name, role)
        self.cell(stage, f"role of {name}", dict(note.facts), lambda: [note])

    def trained(
        self,
        stage: str,
        name: str,
        *,
        role: Role,
        lab: bool = False,
        stem: str | None = None,
        architecture: str | None = None,
        seed: int,
        recipe: Mapping[str, Any],
        data_digest: str,
        parent: str | None = None,
        make: Callable[[nn.Module, Path], Training],
    ) -> LoadedModel:
        """Train, store and load a model as one cell; a killed training goes on where it was."""
        path = self.run.path / "models" / (stem or name)
        architecture = architecture or self.architecture

        def work() -> list[Record]:
            checkpoint = path.with_name(f".{path.name}.checkpoint.safetensors")
            net = self.net(architecture, seed=seed)
            training = make(net, checkpoint)
            right = correct(training.module, self.dataset.validation)
            provenance = Provenance(
                architecture=architecture,
                shape=self.shape,
                classes=self.dataset.classes,
                recipe={**recipe, "seed": seed},
                data_digest=data_digest,
                parent=parent,
                validation_accuracy=float(right.mean()),
            )
            stored = store(training.module, path, provenance)
            checkpoint.unlink(missing_ok=True)
            part = model_note(stored.card.digest, name, role, lab=lab)
            return [
                part,
                *self._training_records(
                    name, seed, stored.card.digest, recipe, training, right, path
                ),
            ]

        depends_on = {
            "architecture": architecture,
            "recipe": dict(recipe),
            "seed": seed,
            "train": data_digest,
            "parent": parent,
            "stem": path.name,
        }
        self.cell(stage, f"train {name}", depends_on, work)
        code = architecture if is_factory(architecture) else None
        model = load(str(path), arch=code, device=self.device)
        self.models[path.name] = model
        return model

    def _training_records(
        self,
        name: str,
        seed: int,
        digest: str,
        recipe: Mapping[str, Any],
        training: Training,
        right: Any,
        path: Path,
    ) -> list[Record]:
        subject = {
            "model": digest,
            "model_name": name,
            "dataset": self.dataset.validation.digest,
            "dataset_name": self.dataset.name,
            "split": "validation",
            "selection": "all",
        }
        measured = Measurement(
            name="validation_accuracy",
            value=Rate.of(int(right.sum()), len(right)),
            subject=subject,
            how={"recipe": dict(recipe)},
            seed=seed,
            cost={"seconds": training.seconds},
        )
        epochs = [
            {"epoch": one.epoch, "loss": one.loss, "validation_accuracy": one.validation_accuracy}
            for one in training.epochs
        ]
        note = Note(
            name=TRAINING,
            facts={
                "model_name": name,
                "model": digest,
                "seed": seed,
                "recipe": dict(recipe),
                "best_epoch": training.best.epoch,
                "epochs": epochs,
            },
        )
        files = [path.with_name(path.name + end) for end in (".safetensors", ".onnx", ".json")]
        return [measured, note, *(self.run.artefact(file, measured.id) for file in files)]


def check_answers(model: LoadedModel, dataset: Dataset) -> None:
    """Refuse a model that does not take the images or does not score each class: it is asked."""
    scored = logits(model.module, dataset.validation.images[:1]).shape[1]
    if scored != len(dataset.classes):
        raise ModelError(
            f"model {model.name!r} scores {scored} classes, "
            f"dataset {dataset.name!r} has {len(dataset.classes)}{BY_NAME}"
        )


def subject_of(
    model: LoadedModel,
    dataset: Dataset,
    name: str,
    *,
    split: str = "test",
    limit: int | None = None,
) -> dict[str, Any]:
    """Return what a number about `model` on a split of `dataset` is about, digests included."""
    images: ImageSet = dataset.split(split)
    selection = "all" if limit is None or limit >= len(images) else f"first {limit}"
    subject: dict[str, Any] = {
        "model": model.digest,
        "model_name": name,
        "dataset": images.digest,
        "dataset_name": dataset.name,
        "split": split,
        "selection": selection,
    }
    if (layer := model.normalisation) is not None:  # the same weights behind another input
        subject["normalisation"] = {"mean": list(layer.mean), "std": list(layer.std)}
    return subject
