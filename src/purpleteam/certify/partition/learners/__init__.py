"""How the network of a part is trained; one learner in each file.

- `readout`    one layer in closed form: exact, without chance, the fastest
- `networks`   two layers by gradient descent from random weights, many parts at a time
"""

import dataclasses
import sys

from purpleteam.certify.partition.learners._base import LEARNERS, Group, Learner, Part

__all__ = ["LEARNERS", "Group", "Learner", "Part", "seeded"]

LEARNERS.load(sys.modules[__name__])


def seeded(name: str, seed: int) -> Learner:
    """Return the learner of that name, with a seed where it has one."""
    kind = LEARNERS[name]
    chance = any(field.name == "seed" for field in dataclasses.fields(kind))
    return kind(seed=seed) if chance else kind()  # type: ignore[call-arg]
