"""Likelihood ratio attack, online (Carlini et al. 2022, arXiv:2112.03570)."""

import numpy as np

from purpleteam.core.arrays import Floats
from purpleteam.privacy.membership import MEMBERSHIP, Evidence, MembershipAttack, part_of

OWN_VARIANCE = 64  # shadow models from which each image has a variance of its own, as in the paper


@part_of(MEMBERSHIP, "lira")
class LiRA(MembershipAttack):
    """Asks whether shadow models that learned the image answer so, or those that did not.

    Of each image both are normal, with means of their own; the variance is one for all images, as
    there are few shadow models, and that within images.
    """

    needs_shadows = True

    def score(self, evidence: Evidence) -> Floats:
        told, inside = evidence.shadow_leads, evidence.inside
        ratio = np.zeros(len(evidence.leads))
        for part, sign in ((inside, 1), (~inside, -1)):
            mean, spread = moments(told, part)
            variance = spread / np.maximum(part.sum(0) - 1, 1)
            if len(told) < OWN_VARIANCE:
                freedom = np.maximum(part.sum(0) - 1, 0).sum()
                variance = np.full_like(mean, spread.sum() / freedom) if freedom else mean * 0 + 1
            variance = np.maximum(variance, np.finfo(np.float64).tiny)
            ratio -= sign * ((evidence.leads - mean) ** 2 / variance + np.log(variance)) / 2
        return ratio


def moments(told: Floats, part: np.ndarray) -> tuple[Floats, Floats]:
    """Return the mean of each image over the shadow models in `part`, and its sum of squares."""
    count = np.maximum(part.sum(0), 1)
    mean = np.where(part, told, 0).sum(0) / count
    return mean, np.where(part, (told - mean) ** 2, 0).sum(0)
