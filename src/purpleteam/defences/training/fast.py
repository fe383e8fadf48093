"""Fast adversarial training: one step, random start (Wong et al. 2020, arXiv:2001.03994)."""

from dataclasses import dataclass

from purpleteam.defences.training import DEFENCES
from purpleteam.defences.training.pgd import PGDTraining


@DEFENCES.register("fast")
@dataclass(frozen=True, kw_only=True)
class FastTraining(PGDTraining):
    """One step of 1.25 epsilon from a random start; may overfit to single steps, so watch PGD."""

    epochs: int = 6
    steps: int = 1
    relative_step_size: float = 1.25
