"""Questions that need no image of anything (Tramer et al. 2016, arXiv:1609.02943)."""

import numpy as np

from purpleteam.core.arrays import Pixels
from purpleteam.privacy.extraction import EXTRACTIONS, Course, Strategy, part_of


@part_of(EXTRACTIONS, "extraction_random")
class Random(Strategy):
    """Asks about noise: each pixel is dark, or of any brightness."""

    ranges = "ink above 0 and at most 1"

    ink: float = 1.0
    """Share of the pixels that are not black."""

    def questions(self, course: Course, count: int) -> Pixels:
        shape = (count, *course.pool.images.shape[1:])
        noise = course.rng.integers(0, 256, shape, np.uint8)
        return np.where(course.rng.random(shape) < self.ink, noise, 0).astype(np.uint8)
