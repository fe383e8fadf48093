"""Adaptive-Blend: less in training than at test (Qi et al. 2023, arXiv:2205.13613).

A poison shows a random half of the picture's pieces, weaker. Cover (their "regularisation samples")
shows such halves too and keeps its label, so that features of poisons do not stand apart.
"""

from dataclasses import field, replace

import numpy as np
from numpy.typing import NDArray

from purpleteam.attacks.poison import POISONS, Context, PoisonAttack, Sources, part_of, rngs
from purpleteam.attacks.poison.triggers import Blend


@part_of(POISONS, "adaptive_blend")
class AdaptiveBlend(PoisonAttack):
    """A blended trigger shown in pieces while the model learns, and whole when it is used."""

    ranges = "pieces at least 1; training_ratio above 0 and at most 1; kept above 0 and at most 1"

    trigger: Blend = field(default_factory=Blend)
    """What is mixed in at test time."""
    training_ratio: float = 0.15
    """Share of the picture in the pieces that a poison shows; 0.15 as published, 0.2 at test."""
    pieces: int = 4
    """Pieces along each side; 4 as published, so 16 in all."""
    kept: float = 0.5
    """Share of the pieces that each poison shows."""
    cover_ratio: float = 1.0
    """Cover images for each poison; 1 as published."""
    cover_sources: Sources = "any"

    def craft(self, context: Context, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        images = context.clean.images[chosen]
        weaker = replace(self.trigger, ratio=self.training_ratio).stamp(images)
        height, width = images.shape[1:3]
        rows = np.arange(height) * self.pieces // height
        columns = np.arange(width) * self.pieces // width
        piece = rows[:, None] * self.pieces + columns[None, :]  # of each pixel
        pieces = self.pieces**2
        count = max(1, round(self.kept * pieces))
        shown = np.zeros((len(images), pieces), np.bool_)
        for row, rng in zip(shown, rngs(context.seed, chosen, "pieces"), strict=True):
            row[rng.permutation(pieces)[:count]] = True
        return np.where(shown[:, piece, None], weaker, images)
