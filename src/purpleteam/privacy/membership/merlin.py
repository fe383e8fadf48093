"""A learned image lies in a hollow of the loss (Jayaraman et al. 2021, arXiv:2005.10881)."""

import numpy as np
from scipy.special import log_softmax

from purpleteam.core.arrays import Floats
from purpleteam.privacy.membership import MEMBERSHIP, Evidence, MembershipAttack, part_of
from purpleteam.privacy.questions import TOGETHER


@part_of(MEMBERSHIP, "merlin")
class Merlin(MembershipAttack):
    """Counts noisy neighbours whose loss is higher; it needs no other model.

    Where as many are higher the mean rise decides.
    """

    ranges = "neighbours at least 1; noise above 0 and at most 1"

    neighbours: int = 20
    """Noisy copies of each image that are asked about."""
    noise: float = 0.02
    """Standard deviation of the noise, in pixel units."""

    @property
    def queries(self) -> int:
        return self.neighbours + 1

    def score(self, evidence: Evidence) -> Floats:
        images, labels = evidence.images.images, evidence.images.labels
        own = evidence.chances[np.arange(len(labels)), labels]
        rng, counted = np.random.default_rng([evidence.seed, 4]), []
        for start in range(0, len(labels), TOGETHER):
            pixels = np.asarray(images[start : start + TOGETHER], np.float64)
            near = np.repeat(pixels, self.neighbours, 0)
            near += rng.normal(0, 255 * self.noise, near.shape)
            scores = evidence.ask(near.round().clip(0, 255).astype(np.uint8))
            asked = np.repeat(labels[start : start + TOGETHER], self.neighbours)
            chances = log_softmax(scores.astype(np.float64), axis=1)[np.arange(len(asked)), asked]
            rise = own[start : start + TOGETHER, None] - chances.reshape(-1, self.neighbours)
            counted.append((rise > 0).mean(1) + np.tanh(rise.mean(1)) / (2 * self.neighbours))
        return np.concatenate(counted)
