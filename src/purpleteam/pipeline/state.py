"""The state of a run: its folder, dataset and models, and the cells that are done once.

A stage may yield `Piece`s: one that fails is recorded and the others are done.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.attacks.poison.asked import aimed_at
from purpleteam.core.cards import find_stored
from purpleteam.core.config import build
from purpleteam.core.factory import is_factory
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.records import Note, Record
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.schema import NOT_TESTED, Role
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.models.architectures import usual_architecture
from purpleteam.models.loading import LoadedModel, load
from purpleteam.models.recipes import Recipe
from purpleteam.pipeline.config import RunConfig
from purpleteam.verbs._subject import Subject, open_subject
from purpleteam.verbs.ladders import usual_epsilon
from purpleteam.verbs.trained import train_and_store

T = TypeVar("T")


@dataclass(frozen=True)
class Piece:
    """Work that the other pieces of its stage do not need; a generator yields pieces of it."""

    what: str  # what it is called where it fails; unique in its stage
    do: Callable[[], object]

    def inner(self) -> Iterator["Piece"]:
        """Do the work, and yield the pieces of it."""
        more = self.do()
        yield from more if isinstance(more, Iterator) else ()


Stage = Callable[["Run"], object]  # a stage of a run, or a part of one; it may yield pieces


@dataclass
class Run:
    """One run as it goes from stage to stage."""

    folder: RunFolder
    config: RunConfig
    dataset: Dataset
    device: torch.device
    threads: int
    progress: Progress = SILENT
    command: tuple[str, ...] = ()  # the command line that was typed, kept with each record
    models: dict[str, LoadedModel] = field(default_factory=dict)
    key: Path | None = None  # the private key that signs the run and its models

    @property
    def target_label(self) -> int:
        """The label that poison attacks aim at: the asked one, or one that they can aim at."""
        return aimed_at(self.config.poison.target_label, self.dataset)

    @property
    def train(self) -> ImageSet:
        """The training images, for whoever learns from them."""
        self.dataset.check_trainable()
        return self.dataset.train

    @property
    def trusted(self) -> ImageSet:
        """The validation images that are known to be clean."""
        return self.dataset.validation.first(self.config.backdoors.trusted)

    @property
    def architecture(self) -> str:
        """Of the models that are trained: what is asked for, or the brought model's own."""
        brought = self.config.models.use
        if self.config.architecture or brought is None:
            return self.config.architecture or usual_architecture(self.subject().shape)
        if is_factory(brought):
            return brought
        named = find_stored(brought).card.architecture
        return self.config.models.arch or named if is_factory(named) else named

    @property
    def doing(self) -> dict[str, Any]:
        """What every verb is told that a stage calls: where, and into which folder."""
        where = {"threads": self.threads, "device": self.device}
        return where | {"run": self.folder, "progress": self.progress}

    @property
    def epsilon(self) -> float:
        """The radius of the numbers of the first page, in linf."""
        asked = self.config.evasion.epsilon
        usual = usual_epsilon("linf", self.dataset.shape[2])
        return asked if asked is not None else usual or PGD.epsilon

    @property
    def curve(self) -> tuple[float, ...]:
        """The radii of the curve over epsilon."""
        asked = self.config.evasion.curve
        return tuple(self.epsilon * part / 6 for part in range(1, 9)) if asked is None else asked

    def options(self, name: str, kind: type[T]) -> T:
        """Return what the request says to a plug-in, as its own dataclass."""
        return build(kind, self.config.options.get(name, {}), f"options.{name}")

    @cached_property
    def brought(self) -> LoadedModel | None:
        """The model that was brought instead of training one."""
        asked = self.config.models
        if asked.use is None:
            return None
        given = {key: getattr(asked, key) for key in ("weights", "arch", "normalise", "classes")}
        return open_subject(self.dataset, model=asked.use, **given, **self.doing).loaded

    def subject(
        self,
        model: LoadedModel | None = None,
        *,
        split: str = "test",
        limit: int | None = None,
        seed: int | None = None,
    ) -> Subject:
        """Return what numbers about a model on a split are about."""
        seed = self.config.seed if seed is None else seed
        return Subject(
            self.dataset, self.device, model, split, limit, seed, self.folder, self.progress
        )

    def cell(
        self,
        stage: str,
        what: str,
        depends_on: Mapping[str, Any],
        work: Callable[[], Sequence[Record]],
    ) -> list[Record]:
        """Do one piece of work once, named by all that its result depends on."""
        keys = {"what": what, "data": self.dataset.digest, "threads": self.threads, **depends_on}
        return self.folder.cell(
            stage, keys, lambda: [replace(record, command=self.command) for record in work()]
        )

    def left_out(self, stage: str, what: str, why: str) -> None:
        """Record what cannot be asked of these images: the report lists it as not tested."""
        facts = {"items": [{"what": what, "why": why}]}
        self.cell(stage, f"leave out {what}", facts, lambda: [Note(name=NOT_TESTED, facts=facts)])

    def plays(self, stage: str, model: LoadedModel, role: Role) -> None:
        """Record what part a model plays that was not trained here."""
        note = self.subject(model).part(role)
        self.cell(stage, f"role of {model.name}", dict(note.facts), lambda: [note])

    def trained(
        self,
        stage: str,
        name: str,
        recipe: Recipe,
        *,
        role: Role = "baseline",
        images: ImageSet | None = None,
        baseline: LoadedModel | None = None,
        seed: int | None = None,
        architecture: str | None = None,
        lab: bool = False,
        **more: Any,
    ) -> LoadedModel:
        """Train, store and load a model as one cell; a killed training goes on where it was.

        `name` is the model's in records; its files end in the seed that is given. What is not given
        is the run's own. `baseline` is for a defence, `more` as in `train_and_store`.
        """
        path = self.folder.path / "models" / (name if seed is None else f"{name}-{seed}")
        if path.name in self.models:
            return self.models[path.name]
        images = self.train if images is None else images
        subject = self.subject(baseline or self.brought, seed=seed)
        arch = architecture or self.architecture
        parent = subject.loaded.digest if getattr(recipe, "needs_baseline", False) else None
        depends_on = {
            "architecture": arch,
            "recipe": {"name": recipe.name, **asdict(recipe), **more},
            "seed": subject.seed,
            "train": images.digest,
            "parent": parent,
            "stem": path.name,
        }

        facts = more | {"images": images, "name": name, "lab": lab}
        train = partial(train_and_store, subject, path, arch, recipe, role, **facts)
        self.cell(stage, f"train {name}", depends_on, lambda: train().records)
        self.models[path.name] = replace(self.stored(path, arch), name=name)
        return self.models[path.name]

    def stored(self, path: Path, architecture: str) -> LoadedModel:
        """Return a model that this run stored."""
        code = architecture if is_factory(architecture) else None
        return load(str(path), arch=code, device=self.device)
