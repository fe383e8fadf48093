"""Other people's images: Knockoff Nets (Orekondy et al. 2019, arXiv:1812.02766)."""

import numpy as np

from purpleteam.core.arrays import Pixels
from purpleteam.privacy.extraction import EXTRACTIONS, Course, Strategy, part_of
from purpleteam.privacy.questions import moved

FARTHEST = 2  # pixels by which images are moved once all were asked about


@part_of(EXTRACTIONS, "extraction_natural")
class Natural(Strategy):
    """Asks about images of the pool, drawn at random; once all were, about moved ones."""

    def questions(self, course: Course, count: int) -> Pixels:
        rows = course.rng.permutation(np.flatnonzero(~course.used))[:count]
        return again(course, course.fresh(rows), count)


def again(course: Course, chosen: Pixels, count: int) -> Pixels:
    """Return the chosen images, and moved ones of the pool where these are too few."""
    parts = [chosen]
    while (missing := count - sum(map(len, parts))) > 0:
        move = course.rng.integers(-FARTHEST, FARTHEST + 1, 2)
        rows = course.rng.permutation(len(course.pool))[: max(1, missing // 8)]
        parts.append(moved(np.asarray(course.pool.images[rows]), *map(int, move)))
    return np.concatenate(parts)
