"""Which attack is made where none is named: the strongest that model and time allow."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from purpleteam.data.images import ImageSet
    from purpleteam.models.loading import LoadedModel

__all__ = ["usual_attack"]

ALLOWED = 600
"""Seconds that the ladder may take where no attack is named; else PGD is made, in a sixth of it."""

TIMED = 16
"""Images on which the model's calls are timed beforehand."""


def usual_attack(loaded: LoadedModel, images: ImageSet, radii: int) -> tuple[str, list[str]]:
    """Return the attack to make where none is named, and why it is this one.

    It is the strongest that the model tells enough for and that the time allows.
    """
    from purpleteam.attacks.evasion.ladder import Ladder
    from purpleteam.models.devices import device_of, frozen, to_batch
    from purpleteam.models.nets import Nets

    some = to_batch(images.images[:TIMED], device_of(loaded.module))
    with frozen(loaded.module) as net:
        nets = Nets.of(net, some)
    if not nets.differentiable:
        name = "square" if nets.model.gives == "scores" else "hop_skip_jump"
        return name, [f"attack {name}: the model gives no gradients"]
    seconds = radii * Ladder().longest(nets.fast, some, len(images))
    length = f"at most {math.ceil(seconds):,} s by a measurement on {len(some)} images"
    if seconds <= ALLOWED:
        return "ladder", [f"attack ladder: {length}, {ALLOWED} s are allowed where none is named"]
    remedy = "--attack ladder makes it all the same"
    return "pgd", [f"attack pgd: the ladder takes {length}, more than {ALLOWED} s; {remedy}"]
