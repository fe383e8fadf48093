"""Does a repair last? Re-poison it with a few images (Min et al. 2024, arXiv:2410.09838).

A net whose backdoor was only covered up learns it again from a handful of poisons, far faster
than a net that never had it. Both are fine-tuned alike, and the attack success rates compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from purpleteam.core.errors import UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.statistics import Rate
from purpleteam.data.images import ImageSet
from purpleteam.defences.repair._base import free_copy
from purpleteam.defences.repair._losses import label_loss
from purpleteam.defences.repair._tuning import Loop, tune
from purpleteam.models.inference import logits

__all__ = ["Repoisoned", "Repoisoning", "repoison"]

COUNTS = (0, 5, 10, 20)


@dataclass(frozen=True, kw_only=True)
class Repoisoning(Loop):
    """How the adversary fine-tunes: as any user of the model would."""

    augmentation: str = "none"


@dataclass(frozen=True, kw_only=True)
class Repoisoned:
    """Attack success rates after fine-tuning with so many poisons; 0 is clean images alone."""

    attack_success_rates: Mapping[int, Rate]

    def to_json(self) -> dict[str, Any]:
        """Return one rate for each count."""
        return {str(count): rate.to_json() for count, rate in self.attack_success_rates.items()}


def repoison(
    model: nn.Module,
    poisons: ImageSet,
    clean: ImageSet,
    triggered: ImageSet,
    *,
    target_label: int,
    counts: Sequence[int] = COUNTS,
    how: Repoisoning | None = None,
    seed: int = 0,
    device: torch.device | None = None,
    progress: Progress = SILENT,
) -> Repoisoned:
    """Fine-tune copies of a model on clean images and the first poisons; measure each.

    Args:
        model: stays as it is.
        poisons: triggered images with the label that the adversary wants.
        clean: images with true labels, mixed in.
        triggered: triggered images of other classes, to measure on; not among the poisons.
        target_label: what the adversary wants them called.
        counts: how many poisons are mixed in; the sets are nested. 0 is the control.
        how: steps and rates.
        seed: order and augmentation are pure functions of it.
        device: where to tune; the default is the CPU.
        progress: where to report.

    Raises:
        UsageError: there are fewer poisons than the largest count, or a count below 0.
    """
    if min(counts, default=0) < 0 or max(counts, default=0) > len(poisons):
        raise UsageError(f"counts {list(counts)} must be from 0 to the {len(poisons)} poisons")
    rates = {}
    for count in sorted(set(counts)):
        net = free_copy(model, device, clean)
        mixed = ImageSet(
            np.concatenate([clean.images, poisons.images[:count]]),
            np.concatenate([clean.labels, poisons.labels[:count]]),
        )
        description = f"re-poison with {count}"
        tune(
            net,
            mixed,
            how or Repoisoning(),
            loss=label_loss,
            seed=seed,
            description=description,
            progress=progress,
        )
        hits = logits(net, triggered.images).argmax(1) == target_label
        rates[count] = Rate.of(int(hits.sum()), len(hits))
    return Repoisoned(attack_success_rates=rates)
