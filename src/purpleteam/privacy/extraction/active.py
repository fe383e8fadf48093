"""Questions of which the copy is unsure: ActiveThief (Pal et al. 2020, arXiv:1905.09165)."""

import numpy as np

from purpleteam.core.arrays import Pixels
from purpleteam.models.inference import logits
from purpleteam.privacy.extraction import EXTRACTIONS, Course, Strategy, part_of
from purpleteam.privacy.extraction.natural import Natural, again


@part_of(EXTRACTIONS, "extraction_active")
class Active(Strategy):
    """Asks about the images of the pool between whose two first labels the copy hardly decides."""

    ranges = "start at least 1; growth above 0 and finite"

    start: int = 100
    """Images that are drawn at random, before there is a copy."""
    growth: float = 1.0
    """Most questions of a round, as a multiple of those before it; then the copy learns again."""

    def questions(self, course: Course, count: int) -> Pixels:
        rows = np.flatnonzero(~course.used)
        if course.copy is None:
            return Natural().questions(course, min(count, self.start))
        count = min(count, max(1, round(self.growth * len(course.asked))))
        if not len(rows):
            return Natural().questions(course, count)
        scores = np.sort(logits(course.copy, course.pool.images[rows]), axis=1)
        unsure = np.argsort(scores[:, -1] - scores[:, -2], kind="stable")[:count]
        return again(course, course.fresh(rows[unsure]), count)
