"""Fast adversarial training: one step, random start (Wong et al. 2020, arXiv:2001.03994)."""

from purpleteam.defences.training import DEFENCES, part_of
from purpleteam.defences.training.pgd import PGDTraining


@part_of(DEFENCES, "fast")
class FastTraining(PGDTraining):
    """One step of 1.25 epsilon from a random start; may overfit to single steps, so watch PGD."""

    epochs: int = 6
    steps: int = 1
    relative_step_size: float = 1.25
