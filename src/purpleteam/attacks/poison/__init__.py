"""Poison attacks: change the training set so that the trained model serves the adversary.

An attack's file writes at most what is done to a poison (`craft`), to a cover image
(`cover_images`), and what label a poison gets (`new_labels`). The choice of images and the manifest
are kept here. Chance is seeded per image by its place, so that more poisons keep the fewer.

- `badnets`, `blended`, `sig`, `wanet`         a trigger each: patch, picture, stripes, warp
- `tact`, `adaptive_blend`, `adaptive_patch`   written against detectors, with cover samples
- `clean_label`, `witches_brew`                no wrong label; made with gradients of a surrogate
- `label_flip`                                 wrong labels alone, which cost accuracy
- `triggers`   what opens a backdoor
- `evaluate`   attack success rate beside base rate and clean accuracy; common triggers swept
- `curve`      success over the number of poisons, with intervals over repetitions
- `asked`      from what is typed, or from a poisoned set's manifest, to an attack
"""

import hashlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from purpleteam.attacks.poison.triggers import AnyTrigger, Trigger
from purpleteam.core.digest import canonical_json, sha256_bytes
from purpleteam.core.errors import UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.registry import Registry, check_ranges, part_of
from purpleteam.data.images import ImageSet
from purpleteam.data.streamed import changed
from purpleteam.models.loading import build
from purpleteam.models.recipes import RECIPES
from purpleteam.models.training import Objective, cross_entropy, train

__all__ = ["POISONS", "PoisonAttack", "PoisonedSet", "part_of"]

Sources = str | tuple[int, ...]
"""`other`: classes that are not the target; `target`: the target itself; `any`; or labels."""
Shown = Literal["trigger", "victim", "nothing"]
"""What a poisoned model errs on: a trigger, one chosen image, or images as they are."""
DEFAULT_COUNT = 100


@dataclass(frozen=True, eq=False)
class PoisonedSet:
    """A training set with a few images changed, in the order of the clean one."""

    images: ImageSet
    indices: NDArray[np.int64]  # places of the poisons, growing
    manifest: Mapping[str, Any]  # all that is needed to make it again
    cover: NDArray[np.int64]  # places of images with the trigger and their own label, growing

    @property
    def rate(self) -> float:
        """Share of the training images that are poisons; cover does not count."""
        return len(self.indices) / len(self.images)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Which images are poisons, bool (N,)."""
        return np.isin(np.arange(len(self.images)), self.indices)

    @cached_property
    def cover_mask(self) -> NDArray[np.bool_]:
        """Which images are cover, bool (N,); none of them is a poison."""
        return np.isin(np.arange(len(self.images)), self.cover)

    @property
    def manifest_digest(self) -> str:
        return sha256_bytes(canonical_json(dict(self.manifest)).encode())


@dataclass(frozen=True, eq=False)
class Context:
    """What an attack starts from, and what it has to tell of how it went."""

    clean: ImageSet
    seed: int
    model: nn.Module | None  # the adversary's classifier; one is trained where it is absent
    validation: ImageSet | None
    progress: Progress
    facts: dict[str, Any] = field(default_factory=dict)  # for the manifest

    def surrogate(
        self, architecture: str, epochs: int, objective: Objective = cross_entropy, number: int = 0
    ) -> nn.Module:
        """Return the model that was given, or train a net; each `number` has its own weights."""
        if self.model is not None:
            return self.model
        clean, seed = self.clean, self.seed + 1_000_003 * number
        height, width, channels = clean.images.shape[1:]
        net = build(architecture, (channels, height, width), int(clean.labels.max()) + 1, seed=seed)
        some = clean.first(min(500, len(clean)))  # only to choose between epochs
        recipe = RECIPES["plain"](epochs=epochs, precision="float32")
        return train(
            net,
            clean,
            some,
            recipe,
            seed=seed,
            objective=objective,
            description="train the surrogate",
            progress=self.progress,
        ).module

    def name_surrogates(self, *models: nn.Module) -> None:
        parts: list[bytes] = []
        for name, value in (item for model in models for item in model.state_dict().items()):
            parts += [name.encode(), value.detach().cpu().contiguous().numpy().tobytes()]
        whose = "trained on the clean set" if self.model is None else "given"
        self.facts["surrogate"] = {"whose": whose, "digest": sha256_bytes(*parts)}


@dataclass(frozen=True, kw_only=True)
class PoisonAttack:
    """Stamps a trigger on a number of training images, with or without a new label."""

    name: ClassVar[str] = ""
    shown: ClassVar[Shown] = "trigger"
    ranges: ClassVar[str] = (
        "count at least 1; rate above 0 and at most 1; target_label at least 0; cover at least 0; "
        "cover_ratio at least 0 and finite"
    )
    """The ranges of the options that the class adds, as `check_ranges` reads them."""

    trigger: AnyTrigger = field(default_factory=Trigger)
    """The pattern that opens the backdoor."""
    count: int | None = None
    """How many training images are poisoned; 100 where no rate is given."""
    rate: float | None = None
    """The same as a share of the training images, above 0 and at most 1."""
    target_label: int = 7
    """The label that the adversary wants for triggered images."""
    sources: Sources = "other"
    """Which images are poisoned: `other` (than the target's), `target`, `any`, or labels."""
    relabel: bool = True
    """Give the poisons the target's label; otherwise they keep their own."""
    cover_ratio: float = 0.0
    """Cover images for each poison: they carry the trigger too and keep their label."""
    cover: int | None = None
    """Number of cover images, instead of the ratio."""
    cover_sources: Sources = "other"
    """Which images may be cover."""
    selection: Literal["random", "first"] = "random"
    """Which of the candidates are taken: a seeded draw, or the first in file order."""

    def __post_init__(self) -> None:
        if self.count is not None and self.rate is not None:
            raise ValueError(f"count {self.count} and rate {self.rate}: only one can be given")
        check_ranges(self)
        for name in ("sources", "cover_sources"):
            sources = getattr(self, name)
            known = sources in ("other", "target", "any")
            if not known and (isinstance(sources, str) or min(sources, default=0) < 0):
                raise ValueError(
                    f"{name} is 'other', 'target', 'any' or a list of labels, not {sources!r}"
                )

    def apply(
        self,
        clean: ImageSet,
        *,
        seed: int,
        model: nn.Module | None = None,
        validation: ImageSet | None = None,
        progress: Progress = SILENT,
    ) -> PoisonedSet:
        """Return the poisoned training set, a pure function of the clean one and the seed.

        Args:
            clean: the training set; it is left alone.
            seed: which images are poisoned, and every chance in how, is a function of it.
            model: what an attack with gradients works against; else a small net is trained.
            validation: where an attack on one image finds that image.
            progress: where to report.
        """
        chosen, cover = self._choose(clean, seed)
        context = Context(clean, seed, model, validation, progress)
        labels = clean.labels.copy()
        try:
            images = changed(clean.images, chosen, self.craft(context, chosen))
            facts = dict(context.facts)  # of the poisons, not of their cover
            if len(cover):
                images = changed(images, cover, self.cover_images(context, cover))
        except ValueError as error:
            raise UsageError(str(error)) from None
        labels[chosen] = self.new_labels(context, chosen)
        poisoned, indices, cover = ImageSet(images, labels), np.sort(chosen), np.sort(cover)
        manifest = self.describe(clean.images.shape[3]) | {
            "fields": asdict(self),
            "seed": seed,
            "indices": indices.tolist(),
            "original_labels": clean.labels[indices].tolist(),
            "poisoned": len(indices),
            "cover": cover.tolist(),
            "rate": len(indices) / len(clean),
            "parent_digest": clean.digest,
            "digest": poisoned.digest,
        }
        return PoisonedSet(poisoned, indices, manifest | facts, cover)

    def check(self, clean: ImageSet, *, seed: int, test: ImageSet | None = None) -> None:
        """Raise a UsageError for what `apply` would refuse, and for what `test` cannot show."""
        chosen, _ = self._choose(clean, seed)
        rest = np.delete(clean.labels, chosen)
        if self.relabel and self.shown == "trigger" and (rest == self.target_label).all():
            raise UsageError(
                f"poisoning {len(chosen)} of {len(clean)} images leaves only the target label "
                f"{self.target_label} to learn: give a smaller count, or more images of others"
            )
        try:
            self.triggered(clean.images[:1])
        except ValueError as error:
            raise UsageError(str(error)) from None
        if test is not None and self.shown == "trigger":
            self.shown_on(test)

    def shown_on(self, test: ImageSet) -> NDArray[np.bool_]:
        """Return which test images show an attack's success, (N,), or a UsageError for none."""
        if (test.labels == self.target_label).all():
            raise UsageError(
                f"all {len(test)} test images are of the target label {self.target_label}: nothing "
                "shows an attack's success; bring more images, or name another target label"
            )
        if not (meant := self.meant(test.labels)).any():
            raise UsageError(
                f"none of the {len(test)} test images is of the sources {self.source_labels}: "
                "nothing shows an attack's success; name other sources"
            )
        return meant

    def triggered(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return uint8 (N, H, W, C) images as the adversary shows them to the trained model."""
        return self.trigger.stamp(images)

    def meant(self, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which images of these classes shall become the target: never its own, (N,)."""
        others, sources = np.asarray(labels != self.target_label), self.source_labels
        return np.isin(labels, sources) & others if isinstance(sources, tuple) else others

    @property
    def source_labels(self) -> Sources:
        """The sources that count; an attack may choose them by its target."""
        return self.sources

    def describe(self, channels: int) -> dict[str, Any]:
        sources = self.source_labels
        facts = {
            "poison": self.name,
            "trigger": self.trigger.describe(channels),
            "target_label": self.target_label,
            "sources": list(sources) if isinstance(sources, tuple) else sources,
            "relabel": self.relabel,
            "selection": self.selection,
        }
        if self.rate is None:
            facts["poisoned"] = self.count or DEFAULT_COUNT
        else:
            facts["asked_rate"] = self.rate
        if self.cover is not None or self.cover_ratio > 0:
            facts["cover_asked"] = self.cover_ratio if self.cover is None else self.cover
        return facts

    def craft(self, context: Context, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the poisons made of the images at `chosen`, which are in the order of the draw."""
        return self.trigger.stamp(context.clean.images[chosen])

    def cover_images(self, context: Context, cover: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the cover made of the images at `cover`; by default as a poison is made."""
        return self.craft(context, cover)

    def new_labels(self, context: Context, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        if not self.relabel:
            return context.clean.labels[chosen]
        return np.full(len(chosen), self.target_label, np.int64)

    def candidates(self, labels: NDArray[np.int64], sources: Sources) -> NDArray[np.int64]:
        """Return the places of the images that `sources` means, growing."""
        of_target = labels == self.target_label
        if isinstance(sources, tuple):
            return np.flatnonzero(np.isin(labels, sources))
        kinds = {"other": ~of_target, "target": of_target, "any": np.ones_like(of_target)}
        return np.flatnonzero(kinds[sources])

    def cover_candidates(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the places of the images that may be cover, growing."""
        return self.candidates(labels, self.cover_sources)

    def _choose(self, clean: ImageSet, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return poisons from the front of the draw and cover from its end, both in its order."""
        known = sorted(set(clean.labels.tolist()))
        if self.target_label not in known:
            raise UsageError(f"target_label {self.target_label} is no label; known: {known}")
        for name, asked in (("sources", self.source_labels), ("cover_sources", self.cover_sources)):
            for label in asked if isinstance(asked, tuple) else ():
                if label not in known:
                    raise UsageError(f"{name}: {label} is no label; known: {known}")

        def ordered(places: NDArray[np.int64]) -> NDArray[np.int64]:
            return places if self.selection == "first" else in_drawn_order(places, seed, "choice")

        count = self.count or DEFAULT_COUNT
        if self.rate is not None:
            count = max(1, round(self.rate * len(clean)))
        covering = round(self.cover_ratio * count) if self.cover is None else self.cover
        order = ordered(self.candidates(clean.labels, self.source_labels))
        chosen, rest = order[:count], order[:0]
        if covering:
            rest = ordered(self.cover_candidates(clean.labels))[::-1]
            rest = rest[~np.isin(rest, chosen)]
        for name, wanted, left, use in (
            ("count", count, len(order), "to choose from"),
            ("cover", covering, len(rest), "left for it"),
        ):
            if left < wanted:
                most = f"the {left} images {use}: give a smaller {name}"
                raise UsageError(f"{name} {wanted} is more than {most}")
        return chosen, rest[:covering]


def in_drawn_order(places: NDArray[np.int64], seed: int, stream: str) -> NDArray[np.int64]:
    """Return the places in an order drawn by the seed; of fewer places the order is the same."""
    keys = np.array([_key(seed, place, stream) for place in places.tolist()], np.uint64)
    return places[np.argsort(keys, kind="stable")]


def rngs(seed: int, places: Iterable[int], stream: str) -> list[np.random.Generator]:
    """Return the random numbers of the image at each of the places, for one use of them."""
    return [np.random.default_rng(_key(seed, int(place), stream)) for place in places]


def to_bytes(x: Tensor) -> NDArray[np.uint8]:
    """Return float (N, C, H, W) in steps of 1/255 as uint8 (N, H, W, C)."""
    pixels = (x.detach() * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return np.asarray(pixels.contiguous().cpu().numpy())


def _key(seed: int, place: int, stream: str) -> int:
    key = hashlib.sha256(f"{seed}/{place}/{stream}".encode()).digest()
    return int.from_bytes(key[:8], "big")


POISONS: Registry[type[PoisonAttack]] = Registry("poison attack")
POISONS.load(sys.modules[__name__])
