"""Modified entropy: sure and right (Song and Mittal 2021, arXiv:2003.10595)."""

import numpy as np

from purpleteam.core.arrays import Floats
from purpleteam.privacy.membership import MEMBERSHIP, Evidence, MembershipAttack, part_of


@part_of(MEMBERSHIP, "entropy")
class Entropy(MembershipAttack):
    """Takes for learned what is answered surely, and with the true label."""

    def score(self, evidence: Evidence) -> Floats:
        labels, log_p = evidence.images.labels, evidence.chances
        rows, p = np.arange(len(labels)), np.exp(log_p)
        log_rest = np.log(np.maximum(-np.expm1(log_p), np.finfo(np.float64).tiny))
        terms = p * log_rest
        terms[rows, labels] = (1 - p[rows, labels]) * log_p[rows, labels]
        return np.asarray(terms.sum(1))  # less the entropy
