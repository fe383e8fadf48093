"""What the detectors of one training set share, each piece computed once and when first asked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.images import ImageSet
from purpleteam.defences.detection.training_set._compact import CompactGroup, compact_groups
from purpleteam.defences.detection.training_set._features import (
    patch_features,
    pixel_features,
)
from purpleteam.defences.detection.training_set._groups import (
    LEAST_MEMBERS,
    SEEDS,
    SharedGroup,
    in_turn,
    shared_group,
)
from purpleteam.defences.detection.training_set._halves import PartRead, read_parts
from purpleteam.defences.detection.training_set._margins import margins
from purpleteam.defences.detection.training_set._penultimate import penultimate
from purpleteam.defences.detection.training_set._reference import (
    Reference,
    learn_reference,
    learn_set,
)
from purpleteam.defences.detection.training_set._split import split_labels
from purpleteam.defences.detection.training_set._votes import out_of_part_votes
from purpleteam.defences.detection.training_set._whitening import Whitened, whiten
from purpleteam.models import build

__all__ = ["CERTAIN", "Survey"]

PART_SIZE = 275
"""Images a part: too few to hold more than one or two of a hundred poisons in 55,000."""
LEAST_PARTS = 40
DOUBTED_SHARE = 0.1
"""The least share of the images that is set aside at first."""
DOUBTED_SHARE_OF_FEW = 0.25
"""The same for a small set, which a net passes so often that three poisons teach a trigger."""
FEW = 10_000
BARRED = 0.1
"""Share of the votes for its own label under which an image never comes back."""
CERTAIN = 5.0
"""Suspicion from which a label is surely contradicted."""
FEATURES = ("pixels", "patches", "fine_patches")
MOST_DOUBTED = 0.5
"""On data that the small subsets cannot read, at least half must be left to learn from."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Survey:
    """A training set under suspicion, and what has been learned of it so far."""

    images: ImageSet
    classes: int
    seed: int = 0
    architecture: str = "small_cnn"
    epochs: int = 3
    """Passes of each net over the set; small sets are passed over more often."""
    rounds: int = 4
    """How often images may come back to the clean reference."""
    trusted: ImageSet | None = None
    model: nn.Module | None = None
    """A model that was trained on the set; one is trained where it is None."""
    device: torch.device | None = None
    progress: Progress = SILENT

    def rows_by_label(self) -> list[NDArray[np.int64]]:
        """Return the places of each label's images, labels that do not occur left out."""
        found = [np.flatnonzero(self.images.labels == label) for label in range(self.classes)]
        return [rows for rows in found if len(rows)]

    @cached_property
    def patch_features(self) -> NDArray[np.float32]:
        """Features (N, d) that no label has touched."""
        return patch_features(self.images.images, seed=self.seed)

    @cached_property
    def votes(self) -> NDArray[np.float64]:
        """Shares (N, K) of the votes of the small subsets that an image is not in."""
        parts = min(max(LEAST_PARTS, len(self.images) // PART_SIZE), len(self.images) // 2)
        return out_of_part_votes(
            self.patch_features, self.images.labels, self.classes, parts=parts, seed=self.seed
        )

    @cached_property
    def doubted(self) -> NDArray[np.bool_]:
        """Which labels the small subsets doubt, (N,)."""
        margin, _ = margins(self.votes, self.images.labels)
        share = DOUBTED_SHARE if len(margin) >= FEW else DOUBTED_SHARE_OF_FEW
        least, most = np.quantile(margin, (share, MOST_DOUBTED))
        return np.asarray(margin <= min(max(least, 0.0), most))

    @cached_property
    def reference(self) -> Reference:
        """The clean reference, and what it says of the suspects."""
        return learn_reference(
            self.images,
            self.doubted,
            self.doubted & (self._own_share < BARRED),
            self.classes,
            architecture=self.architecture,
            epochs=self._epochs,
            rounds=self.rounds,
            seed=self.seed,
            device=self.device,
            progress=self.progress,
        )

    @cached_property
    def trained(self) -> nn.Module:
        """The given model, or one that was trained on the whole set."""
        if self.model is not None:
            return self.model
        return self.learned(np.arange(len(self.images)), "net of all images", "none")

    @cached_property
    def model_features(self) -> NDArray[np.float32]:
        """What enters the last layer (N, d) of the model that learned from all images."""
        return penultimate(self.trained, self.images.images)

    @cached_property
    def suspicion(self) -> NDArray[np.float64]:
        """How surely reference and votes together contradict a label, (N,); 0 for no suspect."""
        suspects = self.reference.suspects
        own = self._own_share[suspects]
        found = np.zeros(len(self.images))
        found[suspects] = np.maximum(-self.reference.margin, 0) / 3 - np.log(own + 0.01)
        return found

    @cached_property
    def content(self) -> NDArray[np.int64]:
        """What each image shows (N,): its label, or what the reference reads in a suspect."""
        found = self.images.labels.copy()
        found[self.reference.suspects] = self.reference.content
        return found

    @cached_property
    def groups(self) -> tuple[SharedGroup, ...]:
        """What the suspects of each label share, in each kind of features."""
        return tuple(group for name in FEATURES for group in self._groups_in(name))

    @cached_property
    def compact(self) -> tuple[CompactGroup, ...]:
        """The tightest group of pixels that stands off within each label."""
        pixels = self.features("pixels")
        return tuple(compact_groups(pixels, self.images.labels, self.classes, seed=self.seed))

    @cached_property
    def splits(self) -> tuple[PartRead, ...]:
        """Labels that fall in two, and how their smaller parts are read by who never saw them."""
        found = split_labels(self.patch_features, self.images.labels, self.classes)
        return read_parts(self, found) if found else ()

    def _groups_in(self, name: str) -> list[SharedGroup]:
        trusted = np.setdiff1d(np.arange(len(self.images)), self.reference.suspects)
        white = whiten(
            self.features(name), self.images.labels, self.content, trusted, seed=self.seed
        )
        return [
            found
            for label in range(self.classes)
            if (found := self._group(white, name, label)) is not None
        ]

    def _group(self, white: Whitened, name: str, label: int) -> SharedGroup | None:
        suspects = self.reference.suspects
        candidates = in_turn(
            suspects[self.images.labels[suspects] == label],
            self.suspicion,
            self.content,
            certain=CERTAIN,
        )
        seeds = min(SEEDS, max(LEAST_MEMBERS, len(candidates) // 2))
        return shared_group(
            white, candidates, label=label, features=name, seeds=seeds, refinements=3
        )

    def learned(
        self, rows: NDArray[np.int64], description: str, augmentation: str = "shift"
    ) -> nn.Module:
        """Return a net that learned from the images at `rows` alone."""
        height, width, channels = self.images.images.shape[1:]
        return learn_set(
            build(self.architecture, (channels, height, width), self.classes, seed=self.seed),
            self.images.take(rows),
            epochs=self._epochs,
            learning_rate=2e-3,
            batch_size=128 if len(self.images) >= FEW else 32,
            seed=self.seed,
            augmentation=augmentation,
            device=self.device,
            description=description,
            progress=self.progress,
        )

    def features(self, name: str) -> NDArray[np.float32]:
        """Return a kind of features (N, d) of all images."""
        if name == "pixels":
            return pixel_features(self.images.images)
        if name == "patches":
            return self.patch_features
        return patch_features(
            self.images.images, filters=24, side=3, pools=7, stride=1, seed=self.seed + 1
        )

    @property
    def _own_share(self) -> NDArray[np.float64]:
        return self.votes[np.arange(len(self.images)), self.images.labels]

    @property
    def _epochs(self) -> int:
        return self.epochs if len(self.images) >= FEW else 4 * self.epochs
