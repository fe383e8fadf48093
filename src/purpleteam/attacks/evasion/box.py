"""Strong attacks inside the box that an input ramp makes of the ball.

A monotone first layer such as clip((x - e) / (1 - 2 e), 0, 1) has no gradient on its flat parts, so
steps that follow gradients of the pixels stay where they are: masked gradients (Athalye et al.
2018, arXiv:1802.00420). The remedy is theirs too, a change of variables: `attacks.driver.Box`.
"""

from typing import Literal

from purpleteam.attacks.evasion import ATTACKS, Ensemble, EvasionAttack, part_of
from purpleteam.attacks.evasion.apgd import APGDCE, APGDT
from purpleteam.attacks.evasion.square import Square


@part_of(ATTACKS, "box")
class BoxAttack(Ensemble):
    """Auto-PGD, targeted Auto-PGD and Square in the box; of AutoAttack's strength by default."""

    norms = ("linf",)
    ranges = "targets at least 1; samples at least 1"

    steps: int = 100
    """Gradient steps of each run of Auto-PGD."""
    targets: int = 9
    """Most wrong classes that are aimed at, the likeliest first."""
    queries: int = 5000
    """Most model calls of Square, for one image."""

    samples: int = 1
    """Gradients averaged at each point, for a model whose answers are random."""

    def members(self, classes: int) -> tuple[EvasionAttack, ...]:
        loss: Literal["dlr", "margin"] = "dlr" if classes >= 4 else "margin"
        auto = {**self.ball, "steps": self.steps, "samples": self.samples}
        targeted = APGDT(**auto, targets=self.targets, loss=loss)
        attacks = (APGDCE(**auto), targeted, Square(**self.ball, queries=self.queries))
        return tuple(attack.inside_box() for attack in attacks)
