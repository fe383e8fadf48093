"""Votes of learners on small disjoint parts, after DPA (Levine and Feizi 2021, arXiv:2006.14768).

A few poisons among many parts are too few in each to teach a trigger.
"""

from purpleteam.core.arrays import Floats
from purpleteam.defences.detection.training_set import _analysis


@_analysis.TRAINING_SET_DETECTORS.register("small_subsets")
def small_subsets(analysis: _analysis.Analysis) -> Floats:
    """Return the share of the out-of-part votes for another label less its own, in [-1, 1]."""
    return -_analysis.margins(analysis.votes, analysis.images.labels)[0]
