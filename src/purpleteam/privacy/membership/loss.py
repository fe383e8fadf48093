"""A low loss betrays an image that was learned (Yeom et al. 2018, arXiv:1709.01604)."""

import numpy as np

from purpleteam.core.arrays import Floats
from purpleteam.privacy.membership import MEMBERSHIP, Evidence, MembershipAttack, part_of


@part_of(MEMBERSHIP, "loss")
class Loss(MembershipAttack):
    """Takes for learned what has a low cross-entropy."""

    def score(self, evidence: Evidence) -> Floats:
        labels = evidence.images.labels
        return np.asarray(evidence.chances[np.arange(len(labels)), labels])
