"""Robust membership inference (Zarifzadeh et al. 2024, arXiv:2312.03262)."""

import numpy as np
from scipy.special import log_softmax, logsumexp

from purpleteam.core.arrays import Floats
from purpleteam.privacy.membership import MEMBERSHIP, Evidence, MembershipAttack, part_of


@part_of(MEMBERSHIP, "rmia")
class RMIA(MembershipAttack):
    """Counts the other images beside which this one is more probable than shadow models say.

    Online: an image's probability is the mean over all shadow models, half of which learned it.
    The population is the images at hand. An image beats another by `gamma` in its ratio; how many
    it beats grows with the ratio alone, which breaks the ties between equal counts.
    """

    needs_shadows = True
    ranges = "gamma at least 1 and finite"

    gamma: float = 2.0
    """By how much the ratio of one image must exceed another's, as in the paper."""

    def score(self, evidence: Evidence) -> Floats:
        labels = evidence.images.labels
        rows = np.arange(len(labels))
        shadows = log_softmax(evidence.shadows.astype(np.float64), axis=2)[:, rows, labels]
        usual = logsumexp(shadows, axis=0) - np.log(len(shadows))
        ratio = evidence.chances[rows, labels] - usual
        beaten = np.searchsorted(np.sort(ratio), ratio - np.log(self.gamma), "right")
        rank = np.argsort(np.argsort(ratio, kind="stable"), kind="stable") / len(ratio)
        return np.where(np.isnan(ratio), np.nan, beaten + rank)
