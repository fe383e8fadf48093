"""What a poisoned model does: success of the backdoor beside base rate and clean accuracy.

The attack success rate is over triggered images of non-target classes. It means little without
the base rate (how often a clean model gives that label on the same images) and without the
clean accuracy; accuracy on triggered images is not an attack success rate at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.attacks.poison._base import PoisonAttack
from purpleteam.core.errors import UsageError
from purpleteam.core.records import Measurement
from purpleteam.core.statistics import Rate
from purpleteam.data.images import ImageSet
from purpleteam.models.inference import Classifier, logits

__all__ = ["Backdoor", "evaluate_backdoor"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Backdoor:
    """What the trigger does to one model, and to a clean one."""

    clean_accuracy: Rate
    attack_success_rate: Rate
    per_source: Mapping[int, Rate]
    """Attack success rate for each true class."""
    base_rate: Rate | None
    """The clean model's rate of the target label on the same triggered images."""
    recovered_accuracy: Rate
    """Triggered images of non-target classes that still get their true label."""
    triggered_accuracy: Rate
    """Accuracy on all triggered images, the target's own included."""
    clean_correct: NDArray[np.bool_]

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `purple poison --train --json`."""
        return {
            "clean_accuracy": self.clean_accuracy.to_json(),
            "attack_success_rate": self.attack_success_rate.to_json(),
            "base_rate": self.base_rate.to_json() if self.base_rate else None,
            "per_source": {str(k): rate.to_json() for k, rate in self.per_source.items()},
            "recovered_accuracy": self.recovered_accuracy.to_json(),
            "triggered_accuracy": self.triggered_accuracy.to_json(),
        }

    def measurements(
        self, subject: Mapping[str, Any], how: Mapping[str, Any], seed: int
    ) -> list[Measurement]:
        """Return the same numbers as records about `subject`."""
        sources = {str(label): rate.to_json() for label, rate in self.per_source.items()}
        values = {
            "attack_success_rate": self.attack_success_rate,
            "base_rate": self.base_rate,
            "recovered_accuracy": self.recovered_accuracy,
            "triggered_accuracy": self.triggered_accuracy,
        }
        return [
            Measurement(
                name=name,
                value=value,
                subject=subject,
                how=how,
                seed=seed,
                detail={"per_source": sources} if name == "attack_success_rate" else {},
            )
            for name, value in values.items()
            if value is not None
        ]


def evaluate_backdoor(
    model: Classifier,
    test: ImageSet,
    poison: PoisonAttack,
    *,
    clean_model: Classifier | None = None,
) -> Backdoor:
    """Measure a backdoor on test images, all of them stamped.

    Args:
        model: the classifier that was trained on the poisoned set.
        test: images that took no part in training.
        poison: gives the trigger and the target label.
        clean_model: a classifier trained without poison, for the base rate.

    Raises:
        UsageError: the test images hold no non-target class.
    """
    stamped = poison.trigger.stamp(test.images)
    labels = logits(model, stamped).argmax(1)
    others = test.labels != poison.target_label
    if not others.any():
        raise UsageError(f"every test image is of the target class {poison.target_label}")
    hits = (labels == poison.target_label) & others
    right = labels == test.labels
    clean_correct = np.asarray(logits(model, test.images).argmax(1) == test.labels)
    base_rate = None
    if clean_model is not None:
        base = logits(clean_model, stamped[others]).argmax(1) == poison.target_label
        base_rate = Rate.of(int(base.sum()), int(others.sum()))
    return Backdoor(
        clean_accuracy=Rate.of(int(clean_correct.sum()), len(test)),
        attack_success_rate=Rate.of(int(hits.sum()), int(others.sum())),
        per_source={
            int(label): Rate.of(int(hits[of].sum()), int(of.sum()))
            for label in np.unique(test.labels[others])
            if (of := test.labels == label).any()
        },
        base_rate=base_rate,
        recovered_accuracy=Rate.of(int((right & others).sum()), int(others.sum())),
        triggered_accuracy=Rate.of(int(right.sum()), len(test)),
        clean_correct=clean_correct,
    )
