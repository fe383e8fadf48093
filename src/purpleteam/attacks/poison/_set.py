"""A poisoned training set: the images, which of them were changed, and how to make it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.digest import canonical_json, sha256_bytes
from purpleteam.data.images import ImageSet


@dataclass(frozen=True, eq=False)
class PoisonedSet:
    """A training set with a few images changed.

    Attributes:
        images: the whole training set, in the order of the clean one.
        indices: int64 places of the poisons, growing.
        manifest: all that is needed to make it again: attack, fields, seed, parent digest.
        cover: int64 places of the images that carry the trigger and keep their label, growing.
    """

    images: ImageSet
    indices: NDArray[np.int64]
    manifest: Mapping[str, Any]
    cover: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def rate(self) -> float:
        """Share of the training images that are poisons; cover does not count."""
        return len(self.indices) / len(self.images)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Which images are poisons, bool (N,)."""
        return self._marked(self.indices)

    @cached_property
    def cover_mask(self) -> NDArray[np.bool_]:
        """Which images are cover, bool (N,); none of them is a poison."""
        return self._marked(self.cover)

    @cached_property
    def manifest_digest(self) -> str:
        """SHA-256 of the manifest's canonical JSON."""
        return sha256_bytes(canonical_json(dict(self.manifest)).encode())

    def _marked(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        mask = np.zeros(len(self.images), np.bool_)
        mask[places] = True
        return mask
