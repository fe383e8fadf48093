"""Likelihood ratio with a variance that is learned from all images (arXiv:2603.11799)."""

import numpy as np
from scipy.stats import t

from purpleteam.core.arrays import Floats
from purpleteam.privacy.membership import MEMBERSHIP, Evidence, MembershipAttack, part_of
from purpleteam.privacy.membership.lira import moments


@part_of(MEMBERSHIP, "bavaria")
class BaVarIA(MembershipAttack):
    """LiRA with a variance for each image, which all images together tell beforehand.

    Of BaVarIA (Braennvall 2026) the Student-t form: the variance has an inverse-gamma prior, so
    that the predictive is a Student t. The prior is centred at the variance within images, and
    the mean has none of its own; both are choices made here.
    """

    needs_shadows = True
    ranges = "strength above 0 and finite"

    strength: float = 4.0
    """Degrees of freedom of the prior: as many answers as it counts for."""

    def score(self, evidence: Evidence) -> Floats:
        told, inside = evidence.shadow_leads, evidence.inside
        ratio = np.zeros(len(evidence.leads))
        for part, sign in ((inside, 1), (~inside, -1)):
            mean, spread = moments(told, part)
            count = np.maximum(part.sum(0), 1)
            freedom = np.maximum(part.sum(0) - 1, 0)
            usual = spread.sum() / freedom.sum() if freedom.sum() else 1.0
            usual = max(float(usual), np.finfo(np.float64).tiny)
            known = self.strength + freedom
            scale = (self.strength * usual + spread) / known * (1 + 1 / count)
            ratio += sign * t.logpdf(evidence.leads, known, mean, np.sqrt(scale))
        return ratio
