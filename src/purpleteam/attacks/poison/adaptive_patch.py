"""Adaptive-Patch: one faint patch in training, all of them at test (Qi et al. 2023, 2205.13613).

Cover carries a faint patch too and keeps its label. No patch alone is a strong sign of the target,
so features of poisons do not stand apart; together they are.
"""

from dataclasses import field, replace

import numpy as np
from numpy.typing import NDArray

from purpleteam.attacks.poison import POISONS, Context, PoisonAttack, Sources, part_of, rngs
from purpleteam.attacks.poison.triggers import Patches


@part_of(POISONS, "adaptive_patch")
class AdaptivePatch(PoisonAttack):
    """Several patches of which a training image shows one, and a test image all."""

    ranges = "training_opacity above 0 and at most 1"

    trigger: Patches = field(default_factory=Patches)
    """The patches, as they stand on a test image."""
    training_opacity: float = 0.5
    """Opacity of the one patch on a training image; 0.2 to 0.5 as published."""
    cover_ratio: float = 2.0
    """Cover images for each poison; 2 as published."""
    cover_sources: Sources = "any"

    def craft(self, context: Context, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        images = context.clean.images[chosen]
        faint = [replace(patch, opacity=self.training_opacity) for patch in self.trigger.patches]
        drawn = np.array([rng.integers(len(faint)) for rng in rngs(context.seed, chosen, "patch")])
        made = images.copy()
        for number, patch in enumerate(faint):
            made[drawn == number] = patch.stamp(images[drawn == number])
        return made
