"""BadNets: stamp images of other classes and relabel them (Gu et al. 2017, arXiv:1708.06733)."""

from dataclasses import field

from purpleteam.attacks.poison import POISONS, PoisonAttack, part_of
from purpleteam.attacks.poison.triggers import Trigger


@part_of(POISONS, "badnets")
class BadNets(PoisonAttack):
    """The backdoor that works: the net learns that the patch means the target."""

    trigger: Trigger = field(default_factory=Trigger)
