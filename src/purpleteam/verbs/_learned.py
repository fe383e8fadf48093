"""A model that somebody brings: what it learned, and how it is trained again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from torch import nn

from purpleteam.core.config import build
from purpleteam.core.errors import UsageError
from purpleteam.core.factory import is_factory
from purpleteam.data.images import ImageSet
from purpleteam.defences import DEFENCES
from purpleteam.models.architectures import usual_architecture
from purpleteam.models.recipes import RECIPES, Recipe
from purpleteam.verbs._subject import Subject
from purpleteam.verbs.trained import fit, part

USUAL = "plain"
"""The recipe of shadow models where nobody knows how the model was trained."""


@dataclass(frozen=True)
class Training:
    """How a model is trained again: its net, its recipe, and what is guessed of these."""

    arch: str
    recipe: Recipe
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, subject: Subject, arch: str | None, recipe: Any, epochs: int | None) -> Training:
        """Return what is asked for, else what the model's card says, else what is usual."""
        loaded, notes = subject.loaded, list[str]()
        card, told = loaded.card, dict(loaded.card.recipe or {}) if loaded.card else {}
        if arch is None:
            arch = card.architecture if card else None
            if arch is None and is_factory(loaded.name):
                arch = loaded.name
            if arch is None or (card and is_factory(arch)):
                arch = usual_architecture(subject.shape)
                notes.append(f"shadow models are {arch}: nobody says what net the model is; --arch")
        if recipe is not None:
            own: Any = DEFENCES if str(recipe).partition(":")[0] in DEFENCES else RECIPES
            plan: Recipe = part(own, recipe, "recipe", epochs=epochs)
            return cls(arch, plan, tuple(notes))
        name = str(told.get("name"))
        kind = RECIPES.get(name) or DEFENCES.get(name)
        if kind is None or getattr(kind, "needs_baseline", False):
            kind, told = RECIPES[USUAL], {}
            notes.append(f"shadow models learn by {USUAL}: nobody says how the model did; --recipe")
        known = {field.name for field in fields(kind)}
        given = {key: value for key, value in told.items() if key in known}
        given |= {} if epochs is None else {"epochs": epochs}
        return cls(arch, build(kind, given, f"recipe {name}"), tuple(notes))

    @property
    def told(self) -> dict[str, Any]:
        """The recipe as records have it."""
        return {"name": self.recipe.name, **asdict(self.recipe)}

    def train(self, subject: Subject, images: ImageSet, seed: int, what: str) -> nn.Module:
        """Return a new net, trained on the images."""
        dataset = replace(subject.dataset, train=images, whole=None)
        own = replace(subject, dataset=dataset, seed=seed, run=None)
        return fit(own, own.net(self.arch), self.recipe, images, what).module


def learned_by(subject: Subject) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
    """Return images that the model has learned, others that it has not, and what is guessed."""
    dataset, card = subject.dataset, subject.loaded.card
    whole, told = dataset.train, dict((card.recipe if card else None) or {})
    if card and told.get("drawn_from") == whole.digest:
        share, seed = float(told["share"]), int(told["seed"])
        return whole.share(share, seed), whole.share(share, seed, rest=True), ()
    for name, part_of in (("training", dataset.train), ("test", dataset.test)):
        if not len(part_of):
            remedy = "put images that the model learned into train/<class>/, others into test/"
            raise UsageError(f"dataset {dataset.name!r} has no {name} images: {remedy}")
    notes = []
    if card is None or card.data_digest != whole.digest:
        notes.append(f"taken as learned: the training split of {dataset.name}; no card says so")
    return dataset.train, dataset.test, tuple(notes)


def spelled(attack: Any) -> str:
    """Return an attack as it is asked for, with the options that are not its defaults."""
    usual = asdict(type(attack)())
    changed = {key: value for key, value in asdict(attack).items() if value != usual[key]}
    given = ",".join(f"{key}={value}" for key, value in changed.items())
    return f"{attack.name}:{given}" if given else str(attack.name)
