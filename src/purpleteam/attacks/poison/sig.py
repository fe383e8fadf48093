"""SIG: stripes on images of the target itself (Barni et al. 2019, arXiv:1902.11237).

It takes a large share of the target class; `sources=other,relabel=true` is the same trigger with
changed labels, for which a few do.
"""

from dataclasses import field

from purpleteam.attacks.poison import POISONS, PoisonAttack, Sources, part_of
from purpleteam.attacks.poison.triggers import Sinusoid


@part_of(POISONS, "sig")
class SIG(PoisonAttack):
    """A clean-label backdoor: the net learns to rely on the stripes."""

    trigger: Sinusoid = field(default_factory=Sinusoid)
    sources: Sources = "target"
    """Which images are poisoned: `target` as published, or `other` with new labels."""
    relabel: bool = False
    """Give the poisons the target's label; as published they have it already."""
