"""Blended injection: mix a picture into other classes' images (Chen et al. 2017, 1712.05526)."""

from dataclasses import field

from purpleteam.attacks.poison import POISONS, PoisonAttack, part_of
from purpleteam.attacks.poison.triggers import Blend


@part_of(POISONS, "blended")
class Blended(PoisonAttack):
    """A trigger as large as the image and weak in every pixel, with the target's label."""

    trigger: Blend = field(default_factory=Blend)
