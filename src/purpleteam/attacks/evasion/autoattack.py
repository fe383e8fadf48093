"""AutoAttack: four attacks without a parameter to tune (Croce & Hein 2020, arXiv:2003.01690).

In L1 as in Croce & Hein 2021 (arXiv:2103.01208).
"""

from collections.abc import Mapping
from typing import Any, Literal

from purpleteam.attacks.evasion import ATTACKS, Ensemble, EvasionAttack, part_of
from purpleteam.attacks.evasion.apgd import APGDCE, APGDDLR, APGDT
from purpleteam.attacks.evasion.fab import FABT
from purpleteam.attacks.evasion.square import Square
from purpleteam.core.errors import UsageError

STEPS = 100
TARGETS = 9
QUERIES = 5000
SAMPLES = 20  # gradients averaged at each point of a model whose answers are random
NORMS = ("linf", "l2", "l1")


@part_of(ATTACKS, "autoattack")
class AutoAttack(Ensemble):
    """The published ensemble: nothing but norm, epsilon and version can be chosen.

    More than 10 classes: the 9 likeliest wrong ones are the targets. Fewer than 4: the targeted
    loss is undefined and the attack refuses; `autoattack_few_classes` is another one.
    """

    norms = NORMS

    version: Literal["standard", "rand"] = "standard"
    """`standard`, or `rand` for a model whose answers are random."""

    @property
    def planned_steps(self) -> int:
        return STEPS

    def members(self, classes: int) -> tuple[EvasionAttack, ...]:
        """Return the attacks of the version, as published for its norm."""
        least = 4 if self.version == "standard" else 3
        if 0 < classes < least:  # 0: of an empty batch nothing is known
            raise UsageError(
                f"{self.name} {self.version} is defined for {least} classes and more, the model "
                f"has {classes}; try autoattack_few_classes"
            )
        if self.version == "rand":
            auto = {**self.ball, "steps": STEPS, "samples": SAMPLES}
            return APGDCE(**auto), APGDDLR(**auto)
        l1 = self.norm == "l1"
        auto = {**self.ball, "steps": STEPS, "large_start": l1}
        return (
            APGDCE(**auto, restarts=5 if l1 else 1),
            APGDT(**auto, targets=5 if l1 else TARGETS),
            *_without_dlr(self.ball),
        )


@part_of(ATTACKS, "autoattack_few_classes")
class AutoAttackFewClasses(Ensemble):
    """What is left of AutoAttack for 2 or 3 classes: the targeted loss is the margin.

    No published attack, so its numbers compare with nobody's "standard".
    """

    norms = NORMS
    planned_steps = AutoAttack.planned_steps

    def members(self, classes: int) -> tuple[EvasionAttack, ...]:
        auto = {**self.ball, "steps": STEPS, "large_start": self.norm == "l1"}
        return APGDCE(**auto), APGDT(**auto, loss="margin"), *_without_dlr(self.ball)


def _without_dlr(ball: Mapping[str, Any]) -> tuple[EvasionAttack, EvasionAttack]:
    fab = FABT(**ball, steps=STEPS, candidates=TARGETS + 1, stop_inside=True)
    return fab, Square(**ball, queries=QUERIES)
