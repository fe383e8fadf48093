"""What a poisoned model does: success of the backdoor beside base rate and clean accuracy.

The attack success rate is over triggered images of the classes that the trigger is meant for, and
never of the target's own: all others, or the sources of a source-specific attack, beside which
stands the rate over all others. It means little without the base rate (how often a clean model
gives that label on the same images) and without the clean accuracy; accuracy on triggered images
is not an attack success rate at all.
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
from purpleteam.core.statistics import Estimate, Rate, paired_difference
from purpleteam.data.images import ImageSet
from purpleteam.models.inference import Classifier, logits


@dataclass(frozen=True, kw_only=True, eq=False)
class Backdoor:
    """What the trigger does to one model, and to a clean one."""

    clean_accuracy: Rate
    attack_success_rate: Rate
    """Over triggered images of the classes that the trigger is meant for."""
    per_source: Mapping[int, Rate]
    """Attack success rate for each true class, also those that the trigger is not meant for."""
    base_rate: Rate | None
    """The clean model's rate of the target label on the same triggered images."""
    recovered_accuracy: Rate
    """Those images that still get their true label."""
    triggered_accuracy: Rate
    """Accuracy on all triggered images, the target's own included."""
    clean_correct: NDArray[np.bool_]
    success_rate_all_classes: Rate
    """Attack success rate over all non-target classes, meant or not."""
    worst_source: tuple[int, Rate]
    """The class that the trigger is meant for on which it succeeds most, and its rate."""
    above_base_rate: Estimate | None
    """Attack success rate minus base rate, over the same images."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `purple poison --train --json`."""
        return {
            "clean_accuracy": self.clean_accuracy.to_json(),
            "attack_success_rate": self.attack_success_rate.to_json(),
            "base_rate": self.base_rate.to_json() if self.base_rate else None,
            "success_rate_all_classes": self.success_rate_all_classes.to_json(),
            "above_base_rate": self.above_base_rate.to_json() if self.above_base_rate else None,
            "worst_source": {"label": self.worst_source[0]} | self.worst_source[1].to_json(),
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
        UsageError: the test images hold no class that the trigger is meant for.
    """
    stamped = poison.triggered(test.images)
    labels = logits(model, stamped).argmax(1)
    others = test.labels != poison.target_label
    if not others.any():
        raise UsageError(f"every test image is of the target class {poison.target_label}")
    meant = poison.meant(test.labels)
    if not meant.any():
        raise UsageError(f"no test image is of the sources {poison.source_labels}")
    hits = np.asarray(labels == poison.target_label)
    right = labels == test.labels
    clean_correct = np.asarray(logits(model, test.images).argmax(1) == test.labels)
    base_rate = above = None
    if clean_model is not None:
        base = logits(clean_model, stamped[meant]).argmax(1) == poison.target_label
        base_rate = _share(base)
        above = paired_difference(base.tolist(), hits[meant].tolist())
    per_source = {int(k): _share(hits[test.labels == k]) for k in np.unique(test.labels[others])}
    worst = max(np.unique(test.labels[meant]).tolist(), key=lambda k: per_source[k].value)
    return Backdoor(
        clean_accuracy=_share(clean_correct),
        attack_success_rate=_share(hits[meant]),
        per_source=per_source,
        base_rate=base_rate,
        recovered_accuracy=_share(right[meant]),
        triggered_accuracy=_share(right),
        clean_correct=clean_correct,
        success_rate_all_classes=_share(hits[others]),
        worst_source=(worst, per_source[worst]),
        above_base_rate=above,
    )


def _share(hits: NDArray[np.bool_]) -> Rate:
    return Rate.of(int(hits.sum()), len(hits))
