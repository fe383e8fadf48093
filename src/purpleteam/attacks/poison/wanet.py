"""WaNet: bend the image itself (Nguyen and Tran 2021, arXiv:2102.10369).

The published attack controls the training; here its two modes are written into the set: poisons
under the warp with the target's label, and cover under the warp with noise, label kept.
"""

from dataclasses import field

import numpy as np
from numpy.typing import NDArray

from purpleteam.attacks.poison import POISONS, Context, PoisonAttack, Sources, part_of, rngs
from purpleteam.attacks.poison.triggers import Warp, warped


@part_of(POISONS, "wanet")
class WaNet(PoisonAttack):
    """A trigger without a pattern: every pixel is the image's own, read beside its place."""

    trigger: Warp = field(default_factory=Warp)
    cover_ratio: float = 2.0
    """Images in noise mode for each poison; 2 as published."""
    cover_sources: Sources = "any"

    def cover_images(self, context: Context, cover: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images under the warp with noise of its size: a net must learn this warp."""
        images = context.clean.images[cover]
        field = self.trigger.field(*images.shape[1:3])
        size = 2 * self.trigger.strength  # uniform in +-size has the mean size `strength`
        drawn = rngs(context.seed, cover, "noise mode")
        noise = np.stack([rng.uniform(-size, size, field.shape) for rng in drawn])
        return warped(images, field[None] + noise)
