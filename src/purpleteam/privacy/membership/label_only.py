"""Labels alone, of moved copies (Choquette-Choo et al. 2021, arXiv:2007.14321)."""

from itertools import product

import numpy as np

from purpleteam.core.arrays import Floats, Pixels
from purpleteam.privacy.membership import MEMBERSHIP, Evidence, MembershipAttack, part_of
from purpleteam.privacy.questions import TOGETHER, moved


@part_of(MEMBERSHIP, "label_only")
class LabelOnly(MembershipAttack):
    """Counts the moved copies of an image that still get its label.

    Those moved further say more where as many of the nearer ones are right.
    """

    answers = "labels"
    ranges = "shift at least 1 and at most 8"

    shift: int = 2
    """Whole pixels by which copies are moved, at most, in each direction."""

    @property
    def moves(self) -> list[tuple[int, int]]:
        """Rows and columns by which copies are moved, the image itself among them."""
        steps = range(-self.shift, self.shift + 1)
        return list(product(steps, steps))

    @property
    def queries(self) -> int:
        return len(self.moves)

    def score(self, evidence: Evidence) -> Floats:
        images, labels = evidence.images.images, evidence.images.labels
        weight = np.array([1 + max(map(abs, move)) / 100 for move in self.moves])
        counted = []
        for start in range(0, len(labels), TOGETHER):
            pixels = np.asarray(images[start : start + TOGETHER])
            right = np.stack(
                [
                    _labels(evidence, moved(pixels, *move)) == labels[start : start + TOGETHER]
                    for move in self.moves
                ],
                1,
            )
            counted.append((right * weight).sum(1) / weight.sum())
        return np.concatenate(counted)


def _labels(evidence: Evidence, pixels: Pixels) -> np.ndarray:
    scores = evidence.ask(pixels)
    return np.where(np.isnan(scores).any(1), -1, np.nan_to_num(scores).argmax(1))
