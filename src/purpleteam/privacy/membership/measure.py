"""What membership inference finds, beside what it finds where there is nothing, and all, to find.

Two controls cost no further training, since shadow models are models whose members are known.
Of images that a shadow model did not learn, those of the model's training set must look like the
others: else the two sets differ, and what an attack tells apart is not what was learned (`gap`).
Of all images, those that a shadow model learned should be found (`power`).
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from purpleteam.core.arrays import Bools
from purpleteam.core.errors import UsageError
from purpleteam.core.statistics import Estimate, mean_over_seeds
from purpleteam.privacy.membership import Evidence, MembershipAttack
from purpleteam.privacy.roc import Roc

LEAST_EXCESS = 0.02  # of the area over guessing: a gap of half of it is never a doubt
TARGETS = 4  # shadow models that the controls attack, the first


@dataclass(frozen=True, kw_only=True, eq=False)
class Membership:
    """What one attack found."""

    attack: MembershipAttack
    roc: Roc
    shadows: int
    queries: int
    """Questions to the model, for all images together."""
    seconds: float
    """Of the processor, without the shadow models' training."""
    gap: Estimate | None = None
    """Area under the ROC between images that no target learned, of the two sets; 0.5 is none."""
    power: Estimate | None = None
    """Area under the ROC of the attack on shadow models."""

    @cached_property
    def doubt(self) -> str:
        """Why the result is not to be trusted, or nothing."""
        if self.gap is None or self.gap.low <= 0.5:
            return ""
        excess = max(abs(self.roc.auc().value - 0.5), LEAST_EXCESS)
        if self.gap.value - 0.5 < excess / 2:
            return ""
        return (
            "members and other images differ by themselves: of images that a shadow model never "
            f"saw those of the training set rank higher, AUROC {self.gap.value:.3f} "
            f"({self.gap.low:.3f} to {self.gap.high:.3f})"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the numbers, the controls and the curve."""
        controls = {"gap": self.gap, "power": self.power}
        return {
            "attack": self.attack.name,
            "answers": self.attack.answers,
            "shadows": self.shadows if self.attack.needs_shadows else None,
            "queries": self.queries,
            **self.roc.to_json(),
            **{name: value and value.to_json() for name, value in controls.items()},
            "trusted": not self.doubt,
            **({"doubt": self.doubt} if self.doubt else {}),
            "cpu_seconds": round(self.seconds, 2),
        }


def measure(
    evidence: Evidence,
    member: Bools,
    attacks: Sequence[MembershipAttack],
    *,
    most: int | None = None,
) -> Iterator[Membership]:
    """Yield what each attack finds.

    Args:
        evidence: what the adversary has.
        member: (N,), the truth.
        attacks: which are tried.
        most: questions that the model answers an attack; it then looks at the first images, as
            many as that allows.

    Raises:
        UsageError: an attack compares with shadow models and there are none, or the questions do
            not suffice for one member and one other image.
    """
    for attack in attacks:
        if attack.needs_shadows and len(evidence.shadows) < 2:
            raise UsageError(f"{attack.name} compares with shadow models, and there are none")
        count = len(member) if most is None else min(len(member), most // attack.queries)
        if not 0 < member[:count].sum() < count:
            needs = f"{attack.name} asks {attack.queries} questions about each image"
            raise UsageError(f"{needs}: {most} are too few to tell members from others")
        seen, started = evidence.first(count), time.process_time()
        roc = Roc.of(attack.score(seen), member[:count])
        gap, power = _controls(attack, seen, member[:count])
        yield Membership(
            attack=attack,
            roc=roc,
            shadows=len(evidence.shadows),
            queries=count * attack.queries,
            seconds=time.process_time() - started,
            gap=gap,
            power=power,
        )


def _controls(
    attack: MembershipAttack, seen: Evidence, member: Bools
) -> tuple[Estimate | None, Estimate | None]:
    """Return gap and power of an attack that asks about the images alone, on shadow models."""
    gaps, powers = [], []
    count = len(seen.shadows)
    if attack.queries > 1 or count < 4:  # their answers on other images were not kept
        return None, None
    for number in range(min(TARGETS, count)):
        rest = np.arange(count) // 2 != number // 2  # less its pair, which learned the other half
        learned, answers = seen.inside[number], seen.shadows[number]
        target = replace(
            seen,
            ask=lambda _, answers=answers: answers,  # type: ignore[misc]
            shadows=seen.shadows[rest],
            inside=seen.inside[rest],
        )
        scores = attack.score(target)
        powers.append(Roc.of(scores, learned).auc().value)
        gaps.append(Roc.of(scores[~learned], member[~learned]).auc().value)
    gap, power = (mean_over_seeds(values, bounds=(0, 1)) for values in (gaps, powers))
    return gap, power
