"""Questions of which the copy is unsure: ActiveThief (Pal et al. 2020, arXiv:1905.09165)."""

import numpy as np

from purpleteam.core.arrays import Pixels
from purpleteam.models.inference import logits
from purpleteam.privacy.extraction import EXTRACTIONS, Course, Strategy, part_of
from purpleteam.privacy.extraction.natural import Natural, again


@part_of(EXTRACTIONS, "extraction_active")
class Active(Strategy):
    """Asks about the images of the pool between whose two first labels the copy hardly decides."""

    def questions(self, course: Course, count: int) -> Pixels:
        rows = np.flatnonzero(~course.used)
        if course.copy is None or not len(rows):
            return Natural().questions(course, count)
        scores = np.sort(logits(course.copy, course.pool.images[rows]), axis=1)
        unsure = np.argsort(scores[:, -1] - scores[:, -2], kind="stable")[:count]
        return again(course, course.fresh(rows[unsure]), count)
